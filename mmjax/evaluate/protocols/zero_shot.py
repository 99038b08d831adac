"""Zero-shot classification: class names in prompts are the classifier.

Reference: Radford et al., CLIP, section 3.1.4 (prompt ensembles).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmjax import metrics, ops
from mmjax.config import ConfigError
from mmjax.data.sources import build_source
from mmjax.evaluate.embed import Encoders, embed_images, embed_texts
from mmjax.method import Params


def build(
    encoders: Encoders,
    *,
    data: Mapping[str, Any],
    class_names: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    max_records: int | None = None,
    ks: Sequence[int] = (1, 5),
) -> Callable[[Params], Iterator[tuple[str, float]]]:
    """Zero-shot classification on a labelled source.

    Args:
      encoders: of the model.
      data: `name` and settings of the source; its records have a `label`.
      class_names: name of each label; None takes the source's own.
      prompts: texts with one `{}` for the name; None takes the source's own, else `a photo of a {}.`.
      max_records: how many records are classified; None takes all.
      ks: numbers of guesses.

    Returns:
      A function of the parameters that yields names and values.

    Raises:
      ConfigError: there are no class names, or a prompt has no place for one.
    """
    source = build_source(**data)
    names = class_names or getattr(source, "class_names", None)
    if not names:
        raise ConfigError(f"zero_shot: the source {data['name']!r} has no class names; set class_names")
    prompts = prompts or getattr(source, "prompts", None) or ("a photo of a {}.",)
    for prompt in prompts:
        if prompt.count("{}") != 1:
            raise ConfigError(f"zero_shot: the prompt {prompt!r} needs exactly one {{}} for the class name")
    texts = [prompt.replace("{}", name) for name in names for prompt in prompts]

    def run(params: Params) -> Iterator[tuple[str, float]]:
        images = embed_images(encoders, params, source, max_records=max_records)
        if images.labels is None:
            raise ConfigError(f"zero_shot: records of {data['name']!r} have no label")
        prompt_embeds = embed_texts(encoders, params, texts).reshape(len(names), len(prompts), -1)
        scores = ops.l2_normalize(images.embeds) @ ops.zero_shot_classifier(prompt_embeds).T
        for k in ks:
            if k < len(names):
                yield f"zero_shot/top{k}", float(metrics.topk_accuracy(scores, images.labels, k=k))
        yield "zero_shot/images", len(images.embeds)

    return run
