"""Options that several verbs share: one meaning each."""

import argparse
import re

ON_ERROR = ("fail", "skip")
FACES = ("center", "largest", "all")
# `input_spec.FRAMINGS`, which imports NumPy.
ALIGN = ("template", "chip", "crop", "none")


def add_model(
    parser: argparse._ActionsContainer,
    *,
    required: bool = True,
    of_gallery: bool = False,
    installed: bool = False,
) -> None:
    """--model SPEC.

    `of_gallery`: a gallery remembers it; `installed`: without, that which is installed.
    """
    without = "; without, dlib_resnet_v1 (`make models`)" if installed else ""
    if of_gallery:
        without = "; without, that of the gallery, or for a new one dlib_resnet_v1"
    parser.add_argument(
        "--model",
        metavar="SPEC",
        required=required and not (of_gallery or installed),
        help="recognizer: NAME:FILE, a published network (`kprpe-jax models`) with its "
        "weights; NAME alone where a package holds them; a file or folder that "
        f"`export` wrote; or a run, FOLDER[@best|@last|@STEP]{without}",
    )


def add_detector(
    parser: argparse._ActionsContainer,
    *,
    required: bool = False,
    without: str = "photos must be aligned faces",
    of_gallery: bool = False,
    installed: bool = False,
) -> None:
    """--detector SPEC, --min-score, --max-side.

    `without` says what happens without one; `of_gallery`: a gallery remembers it;
    `installed`: with neither this nor --model, that which is installed.
    """
    if of_gallery:
        without = "that of the gallery; none = photos are aligned faces"
    if of_gallery or installed:
        without += "; without --model, too, blazeface_short (`make models`)"
    without = "" if required else f"; without, {without}"
    parser.add_argument(
        "--detector",
        metavar="SPEC",
        required=required,
        help="detects faces: NAME:FILE, such as retinaface_mnet025:FILE; NAME alone "
        "where a package holds its weights; none; or a run of "
        f"the task landmarks, FOLDER[@best|@last|@STEP]{without}",
    )
    parser.add_argument(
        "--min-score",
        metavar="SCORE",
        type=float,
        default=None if of_gallery else 0.5,
        help="a face must score more, 0..1 (0.5)",
    )
    parser.add_argument(
        "--max-side",
        metavar="PIXELS",
        type=positive,
        default=None if of_gallery else 1024,
        help="larger photos are shrunk to it before detection, in pixels (1024)",
    )


def add_faces(
    parser: argparse._ActionsContainer, *, choices: tuple[str, ...] = FACES
) -> None:
    """--faces center|largest|all."""
    parser.add_argument(
        "--faces",
        choices=choices,
        default="center",
        help="of a photo: the largest near its center (the default), the largest"
        + (", or all" if "all" in choices else ""),
    )


def add_align(parser: argparse._ActionsContainer, *, of_gallery: bool = False) -> None:
    """--align template|crop|none; `of_gallery`: a gallery remembers it."""
    without = "that of the gallery" if of_gallery else "as the network was trained"
    parser.add_argument(
        "--align",
        choices=ALIGN,
        help="what the recognizer sees: the face aligned to the template; to dlib's "
        "face chip, with more around it; a crop by the detector's box; none = the "
        f"whole photo; without, {without}",
    )


def add_photos(parser: argparse._ActionsContainer, *, required: bool = True) -> None:
    """--photos PATH."""
    parser.add_argument(
        "--photos",
        metavar="PATH",
        required=required,
        help="a photo, a folder, a folder of folders (people), or a video",
    )


def add_gallery(parser: argparse._ActionsContainer) -> None:
    """--gallery FILE."""
    parser.add_argument("--gallery", metavar="FILE", required=True, help="the gallery")


def add_output(
    parser: argparse._ActionsContainer, text: str, *, required: bool = False
) -> None:
    """--output PATH; `text` says of what."""
    parser.add_argument("--output", metavar="PATH", required=required, help=text)


def add_data_dir(parser: argparse._ActionsContainer) -> None:
    """--data-dir DIR."""
    parser.add_argument(
        "--data-dir", metavar="DIR", default="data", help="of all data sets (data)"
    )


def add_style_maps(parser: argparse._ActionsContainer) -> None:
    """--style-maps MAP,MAP."""
    parser.add_argument(
        "--style-maps",
        metavar="MAP,MAP",
        type=names,
        default=(),
        help="feature maps of the style statistics (the network's own)",
    )


def add_fusion(
    parser: argparse._ActionsContainer, text: str, *, required: bool = False
) -> None:
    """--fusion SPEC; `text` says of what, and what happens without one."""
    parser.add_argument(
        "--fusion",
        metavar="SPEC",
        required=required,
        help=f"{text}: average; inlier_average; norm; landmark_score; NAME:FILE, a "
        "published model; a "
        "file that `export` wrote; or a run of set_fusion, FOLDER[@best|@last|@STEP]",
    )


def add_batch_size(parser: argparse._ActionsContainer, default: int = 32) -> None:
    """--batch-size N."""
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=positive,
        default=default,
        help=f"images at once ({default})",
    )


def add_on_error(parser: argparse._ActionsContainer, default: str = "fail") -> None:
    """--on-error fail|skip."""
    parser.add_argument(
        "--on-error",
        choices=ON_ERROR,
        default=default,
        help=f"at a bad photo or entry: fail, or skip and count it ({default})",
    )


def add_processes(parser: argparse._ActionsContainer) -> None:
    """--coordinator, --num-processes, --process-id."""
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="or auto")
    parser.add_argument(
        "--num-processes", metavar="N", type=int, help="processes in all"
    )
    parser.add_argument(
        "--process-id", metavar="N", type=int, help="number of this process, from 0"
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {text}")
    return int(text)


def words(text: str) -> list[str]:
    """Comma-separated words."""
    return [word for word in text.split(",") if word]


def names(text: str) -> tuple[str, ...]:
    """Comma-separated names, as what is part of a compiled program must be."""
    return tuple(words(text))


def image_size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH or HEIGHT,WIDTH, at least 8 pixels each."""
    found = re.fullmatch(r"(\d+)[x,](\d+)", text)
    if not found or min(map(int, found.groups())) < 8:
        raise argparse.ArgumentTypeError(
            f"must be HEIGHTxWIDTH of at least 8 pixels, such as 112x112; got {text}"
        )
    return int(found[1]), int(found[2])


def identity_range(text: str) -> tuple[int, int]:
    """A:B, from A up to but without B."""
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(
            f"must be FIRST:END with FIRST below END, such as 0:100; got {text}"
        )
    return int(found[1]), int(found[2])
