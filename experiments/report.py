"""Writes the report of a trained run: one HTML file.

    python -m experiments.report --checkpoint=runs/clip                                # on what its config evaluates
    python -m experiments.report --checkpoint=runs/emoji --evaluation=new_concept
    python -m experiments.report --checkpoint=runs/clip --data=jsonl:path=pairs.jsonl --out=pairs.html

Prints where it is.
"""

from absl import flags

from experiments import command

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a run, or one checkpoint of it.", required=True)
_EVALUATION = flags.DEFINE_string("evaluation", None, "Name in the config's evals whose data to show; default: first.")
_DATA = flags.DEFINE_string("data", None, "Source to show instead, as name:setting=value,...")
_GROUP = flags.DEFINE_string("group", None, "With --data: field whose equal values make records belong together.")
_EMA = flags.DEFINE_bool("ema", False, "Whether to show the moving average of the parameters.")
_TITLE = flags.DEFINE_string("title", None, "Of the page; default: the name of the workdir.")
_DATE = flags.DEFINE_string("date", None, "Date to print.")
_OUT = flags.DEFINE_string("out", None, "The file; default: report.html in the workdir.")
flags.mark_flags_as_mutual_exclusive(["data", "evaluation"])
flags.register_multi_flags_validator(["data", "group"], lambda v: v["data"] or not v["group"], "--group needs --data.")


def main() -> None:
    from mmjax import parallel, train
    from mmjax.config import parse_call
    from mmjax.data.sources import build_source
    from mmjax.evaluate import report

    run = train.load_run(_CHECKPOINT.value, ema=_EMA.value)
    if _DATA.value:
        name, settings = parse_call(_DATA.value)
        data = report.HeldOut(build_source(name, **settings), _DATA.value, _GROUP.value)
    else:
        data = report.held_out(run.config.get("evals", {}), _EVALUATION.value)
    path = report.write_report(
        run.workdir,
        encoders=train.encoders(run, parallel.make_mesh()),
        params=run.params,
        data=data,
        step=run.step,
        title=_TITLE.value,
        date=_DATE.value,
        out=_OUT.value,
    )
    print(path)


if __name__ == "__main__":
    command.run(main)
