"""The README beside exported programs, taken at its word."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from mmjax.convert import Bundle
from mmjax.convert.probe import fixed_images, make_probe, run_bundle

TEXT = "two CATS and a small dog"


def run_readme(bundle: Bundle, folder: Path) -> None:
    """Runs the README's own lines in a process that cannot import mmjax; the logit must be the bundle's."""
    picture = fixed_images(bundle.image.size)[1]
    Image.fromarray(picture).save(folder / "picture.png")
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0].replace("a red circle", TEXT)
    program = "import sys; sys.modules['mmjax'] = None\n" + code.replace("print(logits)", "print(float(logits[0, 0]))")
    result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    probe = make_probe(bundle)
    ids, mask = bundle.tokenizer.encode([TEXT], length=bundle.context_length)
    text = probe.text._replace(token_ids=ids, mask=mask)
    image = probe.image._replace(pixels=probe.image.pixels[1:2])
    wanted = run_bundle(bundle, probe._replace(image=image, text=text))["logits"]
    np.testing.assert_allclose(float(result.stdout), wanted[0, 0], atol=1e-4)
