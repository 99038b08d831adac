"""Our implementation and another beside each other, on fixed inputs, from the token ids to the logits."""

import jax
import numpy as np

from mmjax.convert.bundle import Bundle
from mmjax.convert.network import Network, run_network
from mmjax.convert.parity import Report, Row, compare
from mmjax.convert.probe import Probe, make_probe, run_bundle


def verify_network(name: str, network: Network, bundle: Bundle) -> Report:
    """Compares a bundle with a PyTorch implementation of it, in float32 on fixed pictures and texts.

    Compared are the token ids, the pixels, the output of each block at the tokens that are no padding, the embeddings,
    raw and normalised, and the logits. What the network lacks stands in the report as not compared.

    Args:
      name: of the other implementation.
      network: it.
      bundle: where it came from, or what became of it.

    Returns:
      The report.
    """
    probe = make_probe(bundle)
    ours, theirs = run_bundle(bundle, probe), run_network(network, probe)
    rows = [row for key, x in ours.items() if key in theirs for row in _rows(key, x, theirs[key], probe)]
    facts = {
        **network.facts,
        "jax": jax.__version__,
        "inputs": " and ".join(
            f"{len(inputs[1])} {kind}" for kind, inputs in (("pictures", probe.image), ("texts", probe.text)) if inputs
        ),
        "limits": "absolute; for blocks in units of the largest value, where that is above 1",
    }
    if missing := [key for key in ours if key not in theirs]:
        facts["not compared"] = ", ".join(missing)
    return Report(f"{name} and mmjax", tuple(rows), facts)


def _rows(name: str, ours: np.ndarray, theirs: np.ndarray, probe: Probe) -> list[Row]:
    if name == "token ids":
        return [compare(name, ours, theirs, limit=0)]
    if "/block_" in name:
        valid = probe.text.mask if probe.text is not None and name.startswith("text/") else ...
        return [compare(name, ours[valid], theirs[valid], relative=True)]
    rows = [compare(name, ours, theirs)]
    if name.endswith("embeddings"):
        rows.append(compare(f"{name}, normalised", _normalised(ours), _normalised(theirs)))
    return rows


def _normalised(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
