"""Who says what in a recording: voice, pitch, subject and sentences, from pools that are apart from the start.

The pool `first` is what the oldest splits are of, and stays as it is: their recordings come out the same. `train` is
everything else but for `unseen`, whose voices, subjects, frames and sentences no training split has. `start` is `train`
without the voices, subjects and frames of `first`, which the quickstart is of.
"""

import json
from dataclasses import dataclass, replace
from random import Random

from lectures import FRAMES, HERE, SCENES, TOPICS, Draw, Scene, everyday_sentences, lecture_sentences
from open_texts import open_sentences


def frames_of(pool: str) -> list[str]:
    """The frames that lie in a file of the pool's own."""
    return (HERE / f"frames-{pool}.txt").read_text(encoding="utf-8").splitlines()


VOICES: dict[str, list[str]] = json.loads((HERE / "voices.json").read_text(encoding="utf-8"))
MORE: dict[str, dict[str, list[str]]] = json.loads((HERE / "subjects.json").read_text(encoding="utf-8"))
VOICES["start"] = [voice for voice in VOICES["train"] if voice not in VOICES["first"]]
SUBJECTS = {
    "first": TOPICS,
    "train": TOPICS | MORE["train"],
    "start": MORE["train"],
    "unseen": MORE["unseen"],
}
POOL_FRAMES = {
    "first": FRAMES,
    "train": FRAMES + frames_of("train"),
    "start": frames_of("train"),
    "unseen": frames_of("unseen"),
}

OPEN = 0.25
"""How often a lecture of the later pools says an open sentence instead of a frame."""
BLENDED = 0.5
"""How often a voice is two voices' mean."""
PITCH = (0.92, 1.09)
"""What the pitch is multiplied by: between these."""
PACE = {"slowest": 0.8, "fastest": 1.3}


@dataclass(frozen=True)
class Part:
    """What a recording is made from; ``voice`` is a name, or two with their weights (`a*0.6+b*0.4`)."""

    topic: str
    voice: str
    pitch: float
    scene: Scene
    draw: Draw


def cast(plan: dict, index: int, random: Random) -> Part:
    """The part that a split's ``plan`` gives to its recording of that ``index``, whose chance is ``random``."""
    pool, text, scene, pitch = plan.get("pool", "first"), plan["text"], SCENES[plan["scene"]], 1.0
    subjects, voices = list(SUBJECTS[pool]), VOICES[pool]
    if pool == "first":
        topic, voice = random.choice(subjects), random.choice(voices)
    else:
        turn = plan["seed"] + index
        topic, voice = subjects[turn % len(subjects)], blended(voices[turn % len(voices)], voices, random)
        pitch, scene = round(random.uniform(*PITCH), 3), replace(scene, **PACE)
    draws = {"lecture": lecture_draw, "everyday": everyday_draw, "open": open_draw}
    return Part(topic if text == "lecture" else text, voice, pitch, scene, draws[text](pool, topic))


def blended(voice: str, voices: list[str], random: Random) -> str:
    """The voice, or, as often as `BLENDED` says, its mean with another of ``voices``, of which it has 30% to 70%."""
    other, share = random.choice(voices), random.randrange(30, 71)
    if other == voice or random.random() >= BLENDED:
        return voice
    return f"{voice}*{share / 100:g}+{other}*{(100 - share) / 100:g}"


def lecture_draw(pool: str, topic: str) -> Draw:
    """Frames of the pool, and, but for the first, open sentences in between."""
    framed = lecture_sentences(topic, SUBJECTS[pool], POOL_FRAMES[pool])
    if pool == "first":
        return framed
    between = open_draw(pool, topic)
    return lambda random: between(random) if random.random() < OPEN else framed(random)


def everyday_draw(pool: str, topic: str) -> Draw:
    """Everyday sentences, the same for every pool that trains."""
    return lambda random: everyday_sentences()(random)


def open_draw(pool: str, topic: str) -> Draw:
    """Open sentences; the unseen pool has its own."""
    return open_sentences(apart=pool == "unseen")
