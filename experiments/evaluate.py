"""Evaluates a trained run.

    python -m experiments.evaluate --checkpoint=runs/clip                               # as its own config says
    python -m experiments.evaluate --checkpoint=runs/clip --data=shapes:split=validation
    python -m experiments.evaluate --checkpoint=runs/clip --data=jsonl:path=pairs.jsonl --protocols=retrieval,zero_shot

Prints a table; `--out` also writes it as JSON.
"""

import pathlib

from absl import flags

from experiments import command

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a run, or one checkpoint of it.", required=True)
_DATA = flags.DEFINE_string("data", None, "Source as name:setting=value,...; default: what the run's config evaluates.")
_PROTOCOLS = flags.DEFINE_list("protocols", ["retrieval"], "Files of mmjax/evaluate/protocols to run on --data.")
_EMA = flags.DEFINE_bool("ema", False, "Whether to evaluate the moving average of the parameters.")
_OUT = flags.DEFINE_string("out", None, "JSON file for the results.")


def main() -> None:
    from mmjax import evaluate, parallel, train
    from mmjax.config import ConfigError, parse_call

    run = train.load_run(_CHECKPOINT.value, ema=_EMA.value)
    evals = run.config.get("evals", {})
    if _DATA.value:
        name, settings = parse_call(_DATA.value)
        evals = {protocol: {"data": {"name": name, **settings}} for protocol in _PROTOCOLS.value}
    if not evals:
        raise ConfigError(f"the config of {_CHECKPOINT.value} evaluates nothing; say on what by --data")
    evaluators = evaluate.build_evaluators(evals, train.encoders(run, parallel.make_mesh()))
    results = {"step": run.step, **dict(evaluate.run_evaluators(evaluators, run.params))}
    if _OUT.value:
        evaluate.write_results(pathlib.Path(_OUT.value), results)
    print(evaluate.results_table(results))


if __name__ == "__main__":
    command.run(main)
