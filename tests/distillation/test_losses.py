"""The blockwise loss against the formula, written plainly over all logits in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from k2d_hf.distillation.loss.divergences import DIVERGENCES
from k2d_hf.distillation.loss.losses import Head, LossWeights, StoredTargets, distillation_loss
from k2d_hf.errors import K2DError

WEIGHTS = [
    pytest.param(LossWeights(), id="paper"),
    pytest.param(LossWeights(ce=1, kl=0), id="ce alone"),
    pytest.param(LossWeights(ce=0, kl=1), id="kl alone"),
    pytest.param(LossWeights(ce=0, kl=0, auxiliary=1), id="auxiliary alone"),
    pytest.param(LossWeights(ce=0.5, kl=0.7, auxiliary=0.3, temperature=1.5), id="all three"),
    pytest.param(LossWeights(divergence="reverse"), id="reverse"),
    pytest.param(LossWeights(0.5, 0.7, 0.3, 1.5, divergence="reverse"), id="reverse, all three"),
    pytest.param(LossWeights(divergence="jensen-shannon"), id="jensen-shannon"),
    pytest.param(LossWeights(0.5, 0.7, 0.3, 1.5, divergence="jensen-shannon"), id="jensen-shannon, all three"),
]


def divergence(name, p, q):
    """By its definition, over probabilities of the target and of the student."""

    def kl(one, other):
        return (one * (one.log() - other.log())).sum(-1)

    mean = (p + q) / 2
    return {"forward": kl(p, q), "reverse": kl(q, p), "jensen-shannon": (kl(p, mean) + kl(q, mean)) / 2}[name]


class Case:
    """Random hidden states, embeddings and labels; teacher and auxiliary have hidden sizes of their own."""

    def __init__(self, *, tokens=23, vocabulary=17, size=8, seed=0, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.hidden = normal(tokens, size).requires_grad_()
        self.embedding = normal(vocabulary, size).requires_grad_()
        self.teacher = Head(normal(tokens, 5), normal(vocabulary, 5))
        self.auxiliary = Head(normal(tokens, 3), normal(vocabulary, 3))
        self.labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
        self.token_weights = torch.rand(tokens, generator=generator)

    def loss(self, weights=None, **options):
        """What the package gives, with both models there."""
        student = Head(self.hidden, self.embedding)
        options = {"teacher": self.teacher, "auxiliary": self.auxiliary, **options}
        return distillation_loss(student, self.labels, weights=weights, **options)

    def gradients(self, total):
        """Gradients by hidden states and embedding."""
        return torch.autograd.grad(total, [self.hidden, self.embedding], allow_unused=True)

    def plain(self, weights, token_weights=None):
        """The formula in float64, with the gradients of autograd: total, components, gradients."""
        hidden = self.hidden.detach().double().requires_grad_()
        embedding = self.embedding.detach().double().requires_grad_()
        logits, t = hidden @ embedding.T, weights.temperature
        ce = -logits.log_softmax(-1)[torch.arange(len(self.labels)), self.labels]

        def kl(head):
            target = (head.hidden.double() @ head.embedding.double().T / t).softmax(-1)
            return divergence(weights.divergence, target, (logits / t).softmax(-1))

        teacher, auxiliary = kl(self.teacher), kl(self.auxiliary)
        per_token = weights.ce * ce + t**2 * (weights.kl * teacher + weights.auxiliary * auxiliary)
        total = (per_token * (1 if token_weights is None else token_weights.double())).sum()
        return total, (ce.sum(), teacher.sum(), auxiliary.sum()), torch.autograd.grad(total, [hidden, embedding])


def relative(value, expected):
    return float((value.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("weighted", [False, True], ids=["", "token weights"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_value_and_gradients_equal_the_formula(weights, dtype, tolerance, weighted):
    case = Case(dtype=dtype)
    token_weights = case.token_weights if weighted else None
    sums = case.loss(weights, token_weights=token_weights, block_tokens=7)
    total, components, gradients = case.plain(weights, token_weights)
    assert sums.total.item() == pytest.approx(total.item(), rel=tolerance)
    for value, expected in zip((sums.ce, sums.kl, sums.auxiliary_kl), components, strict=True):
        assert value.item() == pytest.approx(expected.item(), rel=tolerance)
    for value, expected in zip(case.gradients(sums.total), gradients, strict=True):
        assert value.dtype == dtype
        assert relative(value, expected) < tolerance


@settings(deadline=None, max_examples=60)
@given(
    tokens=st.integers(1, 12),
    vocabulary=st.integers(2, 9),
    block_tokens=st.integers(1, 14),
    seed=st.integers(0, 99),
    ce=st.floats(0, 2),
    kl=st.floats(0, 2),
    auxiliary=st.floats(0, 2),
    temperature=st.floats(0.5, 4),
)
def test_any_block_size_gives_the_formula(tokens, vocabulary, block_tokens, seed, ce, kl, auxiliary, temperature):
    case = Case(tokens=tokens, vocabulary=vocabulary, size=4, seed=seed)
    weights = LossWeights(ce, kl, auxiliary, temperature)
    total, _, gradients = case.plain(weights, case.token_weights)
    sums = case.loss(weights, token_weights=case.token_weights, block_tokens=block_tokens)
    assert sums.total.item() == pytest.approx(total.item(), rel=1e-10, abs=1e-12)
    for value, expected in zip(case.gradients(sums.total), gradients, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_gradcheck(weights):
    case = Case(tokens=5, vocabulary=6, size=3)

    def total(hidden, embedding):
        return distillation_loss(
            Head(hidden, embedding),
            case.labels,
            teacher=case.teacher,
            auxiliary=case.auxiliary,
            weights=weights,
            token_weights=case.token_weights.double(),
            block_tokens=2,
        ).total

    assert torch.autograd.gradcheck(total, [case.hidden, case.embedding])


def test_a_scaled_total_scales_the_gradients():
    case = Case()
    plain, scaled = case.gradients(case.loss().total), case.gradients(3.0 * case.loss().total)
    for one, three in zip(plain, scaled, strict=True):
        torch.testing.assert_close(3.0 * one, three)


def test_a_frozen_embedding_gets_no_gradient_and_changes_no_other():
    case = Case()
    expected = case.gradients(case.loss().total)[0]
    case.embedding.requires_grad_(False)
    total = case.loss().total
    torch.testing.assert_close(torch.autograd.grad(total, case.hidden)[0], expected)
    assert case.embedding.grad is None


def test_frozen_hidden_states_leave_the_gradient_of_the_embedding():
    case = Case()
    expected = case.gradients(case.loss().total)[1]
    case.hidden.requires_grad_(False)
    torch.testing.assert_close(torch.autograd.grad(case.loss().total, case.embedding)[0], expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_value_is_the_same_and_none_is_formed(mode, monkeypatch):
    from k2d_hf.distillation.loss import blockwise as blockwise_loss

    case = Case()
    expected = case.loss().total.item()
    wanted, rows = [], blockwise_loss._Rows
    monkeypatch.setattr(blockwise_loss, "_Rows", lambda *a, **k: (wanted.append(k["wants_gradient"]), rows(*a, **k))[1])
    with mode():
        total = case.loss().total
    assert (total.item(), total.requires_grad, wanted) == (expected, False, [False])


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_any_number_of_rows_in_cache_gives_the_formula(rows, monkeypatch):
    from k2d_hf.distillation.loss import blockwise as blockwise_loss

    monkeypatch.setattr(blockwise_loss, "CACHED_LOGITS", rows * 17)
    case = Case()
    weights = LossWeights(auxiliary=0.5)
    total, _, gradients = case.plain(weights)
    sums = case.loss(weights, block_tokens=10)
    assert sums.total.item() == pytest.approx(total.item(), rel=1e-10)
    for value, expected in zip(case.gradients(sums.total), gradients, strict=True):
        assert relative(value, expected) < 1e-10


def test_projections_in_bfloat16_come_near_those_in_float32():
    case = Case(tokens=64, vocabulary=50, size=16, dtype=torch.float32)
    total, _, gradients = case.plain(LossWeights())
    sums = case.loss(projection_dtype=torch.bfloat16)
    assert sums.total.item() == pytest.approx(total.item(), rel=1e-2)
    for value, expected in zip(case.gradients(sums.total), gradients, strict=True):
        assert value.dtype == torch.float32
        assert relative(value, expected) < 2e-2


def test_logits_far_apart_neither_overflow_nor_lose_the_formula():
    case = Case()
    case.hidden.data.mul_(20)
    case.teacher.hidden.mul_(20)
    total, _, gradients = case.plain(LossWeights())
    sums = case.loss(LossWeights())
    assert sums.total.item() == pytest.approx(total.item(), rel=1e-9)
    for value, expected in zip(case.gradients(sums.total), gradients, strict=True):
        assert relative(value, expected) < 1e-9


class SoftCase(Case):
    """The same with the teacher's k most likely tokens, and the formula over those and one bucket."""

    def targets(self, k, *, temperature=2.0, dtype=torch.float64):
        logprobs = (self.teacher.hidden @ self.teacher.embedding.T / temperature).log_softmax(-1)
        top = logprobs.topk(k)
        return StoredTargets(top.indices.int(), top.values.to(dtype))

    def plain_bucketed(self, weights, targets):
        """In float64 by autograd: total, KL, gradients."""
        logits, t = self.hidden @ self.embedding.T, weights.temperature
        ce = -logits.log_softmax(-1)[torch.arange(len(self.labels)), self.labels]
        columns = targets.ids.long()
        p = targets.logprobs.double().exp()
        q = (logits / t).softmax(-1)
        p = torch.cat([p, 1 - p.sum(-1, keepdim=True)], -1)
        q = torch.cat([q.gather(-1, columns), q.scatter(-1, columns, 0.0).sum(-1, keepdim=True)], -1)
        kl = divergence(weights.divergence, p, q).sum()
        total = weights.ce * ce.sum() + t**2 * weights.kl * kl
        return total, kl, torch.autograd.grad(total, [self.hidden, self.embedding])


@pytest.mark.parametrize("k", [1, 4, 16])
@pytest.mark.parametrize(
    "weights",
    [
        LossWeights(),
        LossWeights(ce=0),
        LossWeights(temperature=1.5),
        *(LossWeights(divergence=name) for name in DIVERGENCES),
    ],
)
def test_soft_targets_give_the_formula_over_k_tokens_and_one_bucket(weights, k):
    case = SoftCase()
    targets = case.targets(k, temperature=weights.temperature)
    total, kl, gradients = case.plain_bucketed(weights, targets)
    sums = case.loss(weights, teacher=targets, auxiliary=None, block_tokens=7)
    assert sums.kl.item() == pytest.approx(kl.item(), rel=1e-9)
    assert sums.total.item() == pytest.approx(total.item(), rel=1e-9)
    for value, expected in zip(case.gradients(sums.total), gradients, strict=True):
        assert relative(value, expected) < 1e-8


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    k=st.integers(1, 17),
    temperature=st.floats(0.5, 4),
    name=st.sampled_from(list(DIVERGENCES)),
)
def test_the_kl_of_soft_targets_is_a_lower_bound_that_rises_with_k_to_the_whole(seed, k, temperature, name):
    case = SoftCase(seed=seed)
    weights = LossWeights(temperature=temperature, divergence=name)
    whole = case.loss(weights).kl.item()
    bounds = [
        case.loss(weights, teacher=case.targets(size, temperature=temperature), auxiliary=None).kl.item()
        for size in (k, 17)
    ]
    assert -1e-9 <= bounds[0] <= bounds[1] + 1e-9
    assert bounds[1] == pytest.approx(whole, rel=1e-7, abs=1e-9)


def test_soft_targets_in_float16_stay_a_lower_bound_but_for_rounding():
    case = SoftCase(tokens=64, vocabulary=500, size=8)
    whole = case.loss().kl.item()
    assert 0 < case.loss(teacher=case.targets(8, dtype=torch.float16), auxiliary=None).kl.item() <= whole * (1 + 1e-3)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_soft_targets_that_sum_to_a_little_more_than_one_are_taken_as_one(name):
    targets = StoredTargets(torch.tensor([[0, 1]]), torch.tensor([[0.6, 0.41]]).log())
    vocabulary = torch.eye(3)
    sums = distillation_loss(
        Head(vocabulary[[0]], vocabulary),
        torch.tensor([0]),
        teacher=targets,
        weights=LossWeights(ce=0, divergence=name),
    )
    assert torch.isfinite(sums.total)
    assert sums.kl > 0


def test_a_token_that_the_teacher_never_says_adds_nothing():
    targets = StoredTargets(torch.tensor([[0, 1]]), torch.tensor([[0.0, -float("inf")]]))
    vocabulary = torch.eye(3)
    sums = distillation_loss(Head(vocabulary[[0]], vocabulary), torch.tensor([0]), teacher=targets)
    assert sums.kl.item() == pytest.approx(-float((vocabulary[0] / 2).log_softmax(-1)[0]), rel=1e-5)


def test_soft_targets_of_both_parties_mix_with_logits_of_either():
    case = SoftCase()
    weights = LossWeights(auxiliary=0.5)
    both = case.loss(weights, teacher=case.targets(17))
    assert both.total.item() == pytest.approx(case.loss(weights).total.item(), rel=1e-9)
    for one, other in zip(case.gradients(both.total), case.gradients(case.loss(weights).total), strict=True):
        torch.testing.assert_close(one, other)


def test_components_carry_no_gradient():
    sums = Case().loss()
    assert sums.total.requires_grad
    assert not any(getattr(sums, name).requires_grad for name in ("ce", "kl", "auxiliary_kl", "agreement"))


def test_inputs_are_left_as_they_were():
    case = Case()
    before = [t.detach().clone() for t in (case.hidden, case.embedding, case.teacher.hidden, case.teacher.embedding)]
    case.loss(LossWeights(auxiliary=1), token_weights=case.token_weights).total.backward()
    after = (case.hidden, case.embedding, case.teacher.hidden, case.teacher.embedding)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_bfloat16_inputs_come_near_the_formula():
    case = Case(tokens=64, vocabulary=50, size=16, dtype=torch.bfloat16)
    weights = LossWeights(auxiliary=0.5)
    sums = case.loss(weights)
    total, _, gradients = case.plain(weights)
    assert sums.total.dtype == torch.float32
    assert sums.total.item() == pytest.approx(total.item(), rel=1e-2)
    for value, expected in zip(case.gradients(sums.total), gradients, strict=True):
        assert value.dtype == torch.bfloat16
        assert relative(value, expected) < 2e-2


def test_parties_may_differ_in_number_format():
    case = Case(dtype=torch.float32)
    half = Head(case.teacher.hidden.bfloat16(), case.teacher.embedding)
    assert float(case.loss(teacher=half).kl) == pytest.approx(float(case.loss().kl), rel=2e-2)


def test_zero_kl_and_full_agreement_for_identical_student_and_teacher():
    case = Case()
    same = Head(case.hidden.detach(), case.embedding.detach())
    sums = case.loss(LossWeights(ce=0, kl=1), teacher=same)
    assert sums.total.item() == pytest.approx(0, abs=1e-12)
    assert int(sums.agreement) == sums.tokens == 23
    assert all(float(gradient.abs().max()) < 1e-12 for gradient in case.gradients(sums.total))


def test_agreement_counts_tokens_that_both_prefer():
    vocabulary = torch.eye(3)
    student, teacher = vocabulary[[0, 1, 2, 0]], vocabulary[[0, 1, 0, 1]]
    labels = torch.tensor([2, 2, 2, 2])
    sums = distillation_loss(Head(student, vocabulary), labels, teacher=Head(teacher, vocabulary))
    assert float(sums.agreement) == 2


def test_without_a_supervised_token_the_loss_is_zero_and_so_are_the_gradients():
    sums = Case(tokens=0).loss()
    case = Case(tokens=0)
    gradients = case.gradients(case.loss().total)
    assert (sums.total.item(), sums.tokens) == (0.0, 0)
    assert gradients[0].shape == (0, 8)
    assert float(gradients[1].abs().sum()) == 0.0


@pytest.mark.parametrize(
    ("weights", "absent", "message"),
    [
        (LossWeights(), "teacher", "no teacher"),
        (LossWeights(auxiliary=0.5), "auxiliary", "no auxiliary"),
    ],
)
def test_a_missing_party_is_an_error(weights, absent, message):
    with pytest.raises(K2DError, match=message):
        Case().loss(weights, **{absent: None})


@pytest.mark.parametrize("name", ["teacher", "auxiliary"])
def test_vocabularies_of_different_size_are_an_error(name):
    other = Case(vocabulary=18)
    with pytest.raises(K2DError, match=f"{name} has 18 tokens, student 17"):
        Case().loss(**{name: getattr(other, name)})
