"""Write a recognizer, a detector or a fusion model as a file, or as programs.

    kprpe-jax export --model runs/lfw@best --output lfw.safetensors
    kprpe-jax export --fusion runs/set_fusion --output fusion.safetensors
    kprpe-jax export --model runs/lfw@best --format pytorch --output torch.safetensors

The file holds weights and, in its metadata, the network with its fields, the input
contract, the license and the fingerprint. It is a SPEC: --model lfw.safetensors, or
--fusion fusion.safetensors. Nothing in it is executed. With --format pytorch it holds
the weights alone, under the names of the network's official PyTorch code, for that
code; NAME:FILE reads it, too.

    kprpe-jax export --model runs/lfw@best --format stablehlo --output FOLDER

writes compiled programs, which JAX alone can run on CPUs, GPUs and TPUs, compares them
with the network and says by how much they differ. FOLDER is a SPEC, too. --format onnx
(in the environment of `make onnx`) writes a file for onnxruntime likewise.
"""

import argparse
import sys

from kprpe_jax.commands import options as shared
from kprpe_jax.commands.programs import export_onnx_file, export_programs

TAKES_BUCKETS = ("--output",)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_model(parser, required=False)
    shared.add_style_maps(parser)
    parser.add_argument(
        "--fusion",
        metavar="SPEC",
        help="fusion model: NAME:FILE, a published one (`kprpe-jax models`); or a run "
        "of set_fusion, FOLDER[@best|@last|@STEP]; or average, norm or landmark_score, "
        "with --model",
    )
    parser.add_argument(
        "--format",
        choices=("kprpe_jax", "pytorch", "stablehlo", "onnx"),
        default="kprpe_jax",
        help="a self-describing file (kprpe_jax), the official state dict, a folder of "
        "compiled programs, or a file for onnxruntime (`make onnx`)",
    )
    shared.add_output(
        parser, "the .safetensors file, or the folder, to write", required=True
    )
    programs = parser.add_argument_group("stablehlo and onnx")
    programs.add_argument(
        "--detector", metavar="SPEC", help="detector, in place of --model"
    )
    programs.add_argument(
        "--platforms",
        metavar="NAME,NAME",
        type=shared.names,
        default=("cpu", "cuda", "tpu"),
        help="on which the programs run (cpu,cuda,tpu)",
    )
    programs.add_argument(
        "--photos",
        metavar="PATH",
        help="photos to compare the programs and the network on; without, rendered "
        "faces",
    )


def run(options: argparse.Namespace) -> None:
    """Run the export command."""
    from kprpe_jax.core.paths import is_bucket
    from kprpe_jax.core.safetensors_file import check_safetensors_path
    from kprpe_jax.fusion.files import save_model
    from kprpe_jax.recognizers import load_fusion, load_recognizer
    from kprpe_jax.weights.fusions import MEANS
    from kprpe_jax.weights.pytorch_file import save_pytorch
    from kprpe_jax.weights.recognizer_file import save_recognizer

    if options.format in ("stablehlo", "onnx") and is_bucket(options.output):
        raise ValueError(
            f"--output {options.output}: must be local with --format {options.format}; "
            "got a bucket; write it locally and copy it there"
        )
    if options.format == "stablehlo":
        export_programs(options)
        return
    if options.format == "onnx":
        export_onnx_file(options)
        return
    if options.detector or options.photos:
        option = "--detector" if options.detector else "--photos"
        raise ValueError(f"{option} belongs to --format stablehlo; got another format.")
    if not (options.model or options.fusion):
        raise ValueError("give --model or --fusion; got neither.")
    output = check_safetensors_path(options.output)
    if options.model and options.fusion and options.fusion not in MEANS:
        raise ValueError("give one of --model and --fusion; got both.")
    if options.fusion and options.format == "pytorch":
        raise ValueError("--format pytorch: is of recognizers; got --fusion.")
    recognizer = None
    if options.model:
        recognizer = load_recognizer(options.model, style_maps=options.style_maps)
    if not is_bucket(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    if options.format == "pytorch":
        count = save_pytorch(output, recognizer)
        sys.stdout.write(
            f"{recognizer.name}: {count} arrays under their PyTorch names; "
            f"{recognizer.input_spec.describe()}; license "
            f"{recognizer.license or 'unknown'}; in {output}\n"
        )
        return
    if not options.fusion:
        save_recognizer(output, recognizer)
        sys.stdout.write(
            f"{recognizer.name}: {recognizer.input_spec.describe()}; fingerprint "
            f"{recognizer.fingerprint[:16]}; license "
            f"{recognizer.license or 'unknown'}; in {output}\n"
        )
        return
    file = load_fusion(options.fusion, recognizer)
    backbone = recognizer.fingerprint if recognizer else file.backbone
    file = save_model(output, file.model, file.variables, backbone=backbone)
    of = f"of the recognizer {backbone[:16]}" if backbone else "of any recognizer"
    sys.stdout.write(
        f"{type(file.model).__name__} {file.fingerprint} {of}; in {output}\n"
    )
