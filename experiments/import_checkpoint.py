"""Takes a PyTorch checkpoint over as the workdir of a run, which the other binaries and `config.init_from` read.

    python -m experiments.import_checkpoint --source=clip-vit-base-patch32 --out=runs/clip_b32 --verify

`--verify` loads the source in its own framework, compares it with the import, and writes the report into the workdir.
"""

from absl import flags

from experiments import command

_SOURCE = flags.DEFINE_string("source", None, "Folder of a checkpoint, or its file of weights.", required=True)
_OUT = flags.DEFINE_string("out", None, "Workdir to make; it may not exist.", required=True)
_FORMAT = flags.DEFINE_string("format", None, "File in mmjax/convert/formats; default: what the source is found to be.")
_VERIFY = flags.DEFINE_bool("verify", False, "Whether to compare the import with the source; needs mmjax[torch].")
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side of the pictures in pixels, to which learned positions are resampled, once verified."
)
_CONTEXT_LENGTH = flags.DEFINE_integer(
    "context_length", None, "Tokens a text may have; short captions are embedded faster with fewer than the source's."
)


def main() -> None:
    import pathlib

    from mmjax import convert, train

    source = convert.Source(pathlib.Path(_SOURCE.value))
    report = None
    with convert.new_folder(_OUT.value) as folder:
        name = _FORMAT.value or convert.detect_format(source)
        bundle = convert.import_model(source, format=name)
        if _VERIFY.value:
            report = convert.verify_model(bundle, source, format=name)
        if _IMAGE_SIZE.value is not None:
            bundle = convert.resize_pictures(bundle, _IMAGE_SIZE.value)
        if _CONTEXT_LENGTH.value is not None:
            bundle = convert.shorten_texts(bundle, _CONTEXT_LENGTH.value)
        folder.rmdir()  # A workdir is made, too, where there is nothing yet.
        train.write_imported(folder, bundle)
        if report is not None:
            report.write(folder)
    if report is not None:
        print(report.to_markdown())
    print(f"{_SOURCE.value} ({name}) is imported to {_OUT.value}")


if __name__ == "__main__":
    command.run(main)
