"""Prepares public data: downloaded files in, a dataset folder out.

    npm pack emoji-datasource
    python -m experiments.prepare_data emoji --source=emoji-datasource-16.0.0.tgz --out=data/emoji

    apt-get download tuxpaint-stamps-default
    python -m experiments.prepare_data stamps --source=tuxpaint-stamps-default_2022.06.04-1_all.deb --out=data/stamps

`--help` lists the data sets, `emoji --help` the settings of one.
"""

import argparse
import inspect
import os
import sys

from experiments import command


def make_parser() -> argparse.ArgumentParser:
    """A command for each file of `mmjax/data/prepare`, with a flag for each argument of its `prepare`."""
    from mmjax import registry

    style = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = argparse.ArgumentParser(prog="python -m experiments.prepare_data", description=__doc__, **style)
    datasets = parser.add_subparsers(dest="dataset", metavar="dataset", required=True)
    for name in registry.names("mmjax.data.prepare"):
        function = registry.find("mmjax.data.prepare", name).prepare
        text = inspect.getdoc(function) or name
        dataset = datasets.add_parser(name, help=text.splitlines()[0], description=text, **style)
        for setting in inspect.signature(function).parameters.values():
            if setting.default is setting.empty:
                dataset.add_argument(f"--{setting.name}", required=True)
            else:
                kind = int if isinstance(setting.default, int) else str
                dataset.add_argument(f"--{setting.name}", default=setting.default, type=kind)
    return parser


def main(dataset: str, **settings: str | int | None) -> None:
    from mmjax.data import storage
    from mmjax.data.prepare import prepare

    splits = prepare(dataset, **settings)
    out = str(settings["out"])
    info, _ = storage.read_info(out)
    for name, split in splits.items():
        size = sum(os.path.getsize(os.path.join(out, file)) for file in split.files)
        print(f"{name:12s} {split.count:8d} records {size / 2**20:8.1f} MiB")
    for name, value in info.notes.items():
        print(f"{name}: {value}")
    print(f"licence: {info.licence}")
    print(f"read it with build_source('arrayrecord', path={out!r}, split={next(iter(splits))!r})")


if __name__ == "__main__":
    # What the parser does not know is left to absl, such as --verbosity.
    arguments, sys.argv[1:] = make_parser().parse_known_args()
    command.run(lambda: main(**vars(arguments)))
