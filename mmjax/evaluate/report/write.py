"""`write_report`: from a workdir, parameters and data to one HTML file."""

import pathlib

import jinja2

import mmjax
from mmjax.config import to_json
from mmjax.evaluate.embed import Encoders
from mmjax.evaluate.report.curves import evaluation_panels, training_panels
from mmjax.evaluate.report.facts import run_facts
from mmjax.evaluate.report.held_out import HeldOut, protocols
from mmjax.evaluate.report.run_files import read_json, read_lines
from mmjax.evaluate.report.sections import pair_sections
from mmjax.evaluate.report.tables import cosine, parameter_rows, result_tables, share
from mmjax.method import Params


def write_report(
    workdir: str | pathlib.Path,
    *,
    encoders: Encoders,
    params: Params,
    data: HeldOut | None = None,
    step: int | None = None,
    title: str | None = None,
    date: str | None = None,
    out: str | pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes the report of a run; what there is no data for is left out with a sentence that says so.

    The same workdir, parameters and data give the same bytes.

    Args:
      workdir: of the run: `config.json`, `metrics.jsonl` and `result.json` are read where they are.
      encoders: of the model.
      params: of the model.
      data: pictures with captions to show, 1,000 at most, as each is scored against every caption; `held_out` finds
        those that a config evaluates.
      step: of the parameters.
      title: of the page; the name of the workdir by default.
      date: to print; the clock is not asked.
      out: the file; `<workdir>/report.html` by default.

    Returns:
      The file.
    """
    workdir = pathlib.Path(workdir)
    config, results = read_json(workdir / "config.json"), read_json(workdir / "result.json")
    metrics = read_lines(workdir / "metrics.jsonl")
    html = _template().render(
        title=title or workdir.resolve().name,
        synthetic=bool(results.get("trained_on_synthetic_data", False)),
        facts=run_facts(workdir, config, step=step, date=date),
        parameters=parameter_rows(params),
        results=result_tables(results),
        result_step=results.get("step"),
        protocols=protocols(config.get("evals", {})),
        training=training_panels(metrics),
        evaluation=evaluation_panels(metrics),
        pairs=pair_sections(encoders, params, data),
        config=to_json(config).strip() if config else None,
        version=mmjax.__version__,
        share=share,
        cosine=cosine,
    )
    path = pathlib.Path(out) if out else workdir / "report.html"
    fresh = path.with_suffix(".tmp")
    fresh.write_text(html, encoding="utf-8")
    fresh.replace(path)
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmjax.evaluate.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.jinja")
