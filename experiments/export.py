"""Hands a trained run to another framework.

    python -m experiments.export --checkpoint=runs/clip --format=hf_clip --out=exported/clip --verify

`--verify` loads the folder in that framework, compares it with the run, and writes the report into it.
"""

from absl import flags

from experiments import command

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a run, or one checkpoint of it.", required=True)
_FORMAT = flags.DEFINE_string("format", None, "File in mmjax/convert/formats or .../programs.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to make; it may not exist.", required=True)
_EMA = flags.DEFINE_bool("ema", False, "Whether to export the moving average of the parameters.")
_VERIFY = flags.DEFINE_bool("verify", False, "Whether to compare the folder with the run; needs mmjax[torch].")


def main() -> None:
    from mmjax import convert, train

    convert.find_format(_FORMAT.value)
    run = train.load_run(_CHECKPOINT.value, ema=_EMA.value)
    bundle = convert.Bundle(run.model, run.params, run.tokenizer, run.image, run.context_length)
    report = convert.export_model(bundle, _OUT.value, format=_FORMAT.value, verify=_VERIFY.value)
    if report is not None:
        print(report.to_markdown())
    print(f"step {run.step} of {_CHECKPOINT.value} is exported to {_OUT.value}")


if __name__ == "__main__":
    command.run(main)
