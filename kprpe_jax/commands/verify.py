"""Say whether two photos show the same person.

    kprpe-jax verify a.jpg b.jpg --model mobilefacenet:mobilefacenet.npz \\
        --detector retinaface_mnet025:retinaface_mnet025.npz

The score is the cosine of the embeddings. Without --threshold, a published network has
the threshold that was measured for it, with its false-acceptance rate.
"""

import argparse
import sys

from kprpe_jax.commands import options as shared
from kprpe_jax.commands.galleries import close_account, load_networks
from kprpe_jax.commands.main import RunError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("photos", nargs=2, metavar="PHOTO", help="the two photos")
    networks = parser.add_argument_group("networks")
    shared.add_model(networks, installed=True)
    shared.add_detector(networks, installed=True)
    shared.add_faces(networks, choices=("center", "largest"))
    shared.add_align(networks)
    parser.add_argument(
        "--threshold", type=float, help="least score of the same person, -1..1"
    )


def run(options: argparse.Namespace) -> None:
    """Run the verify command."""
    from kprpe_jax.alignment.framing import NoFaceError
    from kprpe_jax.gallery.verify import verify

    recognizer, detector = load_networks(options)
    try:
        result = verify(
            *options.photos,
            recognizer,
            detector,
            faces=options.faces,
            threshold=options.threshold,
        )
    except NoFaceError as error:
        raise RunError(str(error)) from error
    for note in result.notes:
        sys.stderr.write(f"note: {note}\n")
    answer = {True: "yes", False: "no", None: "undecided"}[result.same]
    sys.stdout.write(f"same person: {answer}\nscore: {result.score:.4f}\n")
    if result.threshold is None:
        sys.stdout.write(
            f"threshold: none was measured for {recognizer.name}; give --threshold\n"
        )
    else:
        sys.stdout.write(f"threshold: {result.threshold:g}\n")
        rate = "unknown for this threshold and network"
        if result.false_acceptance_rate is not None:
            rate = f"{result.false_acceptance_rate:g} ({result.measured_on})"
        sys.stdout.write(f"false-acceptance rate: {rate}\n")
    close_account(result.left_out, used=result.used)
