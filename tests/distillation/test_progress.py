"""Progress of training: the bar moves with the steps, and the line shows first and last losses."""

from types import SimpleNamespace

import pytest

from k2d_hf.distillation.measures import TrainingProgress


class Bar:
    def __init__(self):
        self.calls = []

    def start(self, total, unit):
        self.calls.append((total, unit))

    def advance(self, count, note=""):
        self.calls.append((count, note))


def progress(*logs, at=0, before=()):
    """Progress after some logs, one a step."""
    made = TrainingProgress(Bar())
    state = SimpleNamespace(max_steps=4, global_step=at, log_history=list(before))
    made.on_train_begin(None, state, None)
    for entry in logs:
        made.on_log(None, state, None, logs=entry)
        made.on_step_end(None, state, None)
    return made


@pytest.mark.parametrize(
    ("logs", "line"),
    [
        ([], "no loss was logged: lower distil.logging_steps"),
        ([{"eval_loss": 1.0}, None], "no loss was logged: lower distil.logging_steps"),
        ([{"loss": 2.0, "ce": 2.5}], "loss 2.00 -> 2.00 (ce 2.50)"),
        (
            [{"loss": 8.19, "ce": 9.0}, {"loss": 0.47, "ce": 0.21, "kl": 0.08, "agreement": 0.912}],
            "loss 8.19 -> 0.47 (ce 0.21, kl 0.08)  agreement with teacher 91%",
        ),
    ],
)
def test_summary(logs, line):
    assert progress(*logs).summary() == line


def test_the_bar_moves_with_the_steps():
    assert progress({"loss": 3.0}, {"loss": 2.0}).bar.calls == [
        (4, "steps"),
        (0, ""),
        (1, "loss 3.00"),
        (1, "loss 2.00"),
    ]


def test_a_resumed_run_starts_where_it_was_and_knows_its_first_loss():
    made = progress({"loss": 1.0}, at=3, before=[{"loss": 9.0}, {"eval_loss": 8.0}])
    assert made.bar.calls[:2] == [(4, "steps"), (3, "")]
    assert made.summary() == "loss 9.00 -> 1.00"


def test_states_of_the_encoder_are_counted_before_the_first_step():
    made = TrainingProgress(Bar())
    made.count_encoder_states(4)
    made.count_encoder_states(2)
    made.on_train_begin(None, SimpleNamespace(max_steps=4, global_step=0, log_history=[]), None)
    assert made.bar.calls == [(None, "encoder states"), (4, ""), (2, ""), (4, "steps"), (0, "")]
