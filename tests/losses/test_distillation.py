import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import losses

clip_distillation_loss, clip_loss = map(jax.jit, (losses.clip_distillation_loss, losses.clip_loss))

RNG = np.random.default_rng(0)
STUDENT = [jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32) for _ in range(2)]
TEACHER = [jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32) for _ in range(2)]
SETTINGS = {"scale": 4.0, "teacher_scale": 9.0}


def logits(images, texts, scale):
    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (np.asarray(images), np.asarray(texts)))
    return scale * images @ texts.T


def softmax(row):
    return np.exp(row) / np.exp(row).sum()


def test_equals_loops():
    student, teacher = logits(*STUDENT, 4.0), logits(*TEACHER, 9.0)
    expected = [
        -0.5
        * sum(
            softmax(t[i])[j] * np.log(softmax(s[i])[j])
            for s, t in ((student, teacher), (student.T, teacher.T))
            for j in range(4)
        )
        for i in range(4)
    ]
    np.testing.assert_allclose(clip_distillation_loss(*STUDENT, *TEACHER, **SETTINGS), expected, rtol=1e-5)


def test_a_certain_teacher_is_clip_loss():
    """Orthogonal pairs at a large scale: the teacher's softmaxes are the identity."""
    teacher = jnp.eye(4)
    value = clip_distillation_loss(*STUDENT, teacher, teacher, scale=4.0, teacher_scale=1e3)
    np.testing.assert_allclose(value, clip_loss(*STUDENT, scale=4.0), rtol=1e-5)


def test_the_teacher_itself_is_a_minimum():
    """Student = teacher: the value is the teacher's entropy and the gradient vanishes."""
    value, gradients = jax.jit(
        jax.value_and_grad(
            lambda a, b: clip_distillation_loss(a, b, *TEACHER, scale=9.0, teacher_scale=9.0).sum(), argnums=(0, 1)
        )
    )(*TEACHER)
    rows = [softmax(row) for matrix in (logits(*TEACHER, 9.0), logits(*TEACHER, 9.0).T) for row in matrix]
    np.testing.assert_allclose(value, -0.5 * sum(p @ np.log(p) for p in rows), rtol=1e-5)
    for gradient in gradients:
        np.testing.assert_allclose(gradient, 0.0, atol=1e-5)


def test_the_teacher_gets_no_gradient():
    def total(student, teacher, teacher_scale):
        return clip_distillation_loss(*student, *teacher, scale=4.0, teacher_scale=teacher_scale).sum()

    student, teacher, teacher_scale = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(STUDENT, TEACHER, 9.0)
    assert all(np.all(gradient == 0) for gradient in teacher)
    assert teacher_scale == 0
    assert all(np.abs(gradient).max() > 1e-3 for gradient in student)


def test_modalities_may_change_places():
    value = clip_distillation_loss(*STUDENT[::-1], *TEACHER[::-1], **SETTINGS)
    np.testing.assert_allclose(value, clip_distillation_loss(*STUDENT, *TEACHER, **SETTINGS), rtol=1e-5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([STUDENT[0], STUDENT[1][:3], *TEACHER], r"image_embeds \(4, 3\), text_embeds \(3, 3\)"),
        ([*STUDENT, TEACHER[0], TEACHER[1][:, :2]], r"teacher_image_embeds \(4, 5\), teacher_text_embeds \(4, 2\)"),
        ([*STUDENT, TEACHER[0][:3], TEACHER[1][:3]], r"image_embeds \(4, 3\), teacher_image_embeds \(3, 5\)"),
        ([STUDENT[0][0], STUDENT[1], *TEACHER], r"image_embeds has shape \(3,\), expected 2 axes"),
    ],
)
def test_errors(arrays, message):
    with pytest.raises(ValueError, match="clip_distillation_loss: .*" + message):
        clip_distillation_loss(*arrays, **SETTINGS)
