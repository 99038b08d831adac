"""mmjax: multimodal alignment, distillation and parameter-efficient fine-tuning as pure JAX functions."""

__version__ = "0.1.0"
