"""Evaluations side by side, as the table that a terminal and a model card show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

from k2d_hf.evaluation.sets import UNNAMED, MacroAverage, macro_averages
from k2d_hf.evaluation.switching import shown_rates, switch_counts
from k2d_hf.evaluation.timing import inverse, speed_up
from k2d_hf.formatting import counted
from k2d_hf.scoring.error_rates import insertions_text
from k2d_hf.terminal.bars import bars
from k2d_hf.terminal.console import minutes
from k2d_hf.terminal.screen import ENDLESS, Screen, aligned, columns_of, printable

TITLES = {
    "adapted": "teacher, adapted",
    "student_before": "student, before",
}  # rows whose title differs from the key in evaluation.json
WIDTH = 80  # of a terminal, where none is known
MER = "MER %"
PAPER_PARTS = {"zh CER": "zh_cer", "en WER": "en_wer"}  # of Mandarin-English, by title; other pairs have their own
COLUMNS = ("S/D/I", "loops", "RTF", "RTFx", "params")
WORDS = "WER %"  # the first column of a set whose normaliser leaves words


def table_columns(evaluations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Titles of the columns of a set: the rate of its normaliser, if that adds one, MER and its parts, `COLUMNS`."""
    return [*([WORDS] if _has_words(evaluations) else []), MER, *part_titles(evaluations.values()), *COLUMNS]


def part_titles(figures: Iterable[Mapping[str, Any]]) -> list[str]:
    """Titles of the parts of the mixed error rate that some evaluations of a set have; those of the paper, if none.

    Of another pair of languages, all of whose words are in one script, there are none.
    """
    figures = list(figures)
    if titles := dict.fromkeys(title for one in figures for title in one.get("parts") or ()):
        return list(titles)
    none = all(one[key] is None for one in figures for key in PAPER_PARTS.values())
    return [] if none and figures else list(PAPER_PARTS)


def part_of(figures: Mapping[str, Any], title: str) -> float | None:
    """The rate of a part by its title; None where it is not known."""
    return figures[PAPER_PARTS[title]] if title in PAPER_PARTS else (figures.get("parts") or {}).get(title)


def table_rows(evaluations: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Cells of the table, a row a model: its name, then `table_columns`."""
    words, parts = _has_words(evaluations), part_titles(evaluations.values())
    return [
        [TITLES.get(name, name), *([percent(figures.get("wer"))] if words else []), *_cells(figures, parts)]
        for name, figures in evaluations.items()
    ]


def render_sets(sets: Mapping[str, Mapping[str, Mapping[str, Any]]], screen: Screen = ENDLESS) -> str:
    """The tables of test sets as text; of named ones each with its name, a chart, and averages of sets that are alike.

    Args:
        sets: figures by set and model, as `k2d_hf.evaluation.sets.figures_of_sets` gives them.
        screen: where it is shown.
    """
    if list(sets) == [UNNAMED]:
        return render_table(sets[UNNAMED], screen)
    parts = []
    for name, evaluations in sets.items():
        title = within(f"{name}: {described(evaluations)}", screen)
        parts.append(f"{title}\n{render_table(evaluations, screen)}\n\n{render_bars(evaluations, screen)}")
    return "\n\n".join([*parts, *render_averages(macro_averages(sets), screen)])


def render_averages(averages: Sequence[MacroAverage], screen: Screen = ENDLESS) -> list[str]:
    """Averages as text, each with its title."""
    return [f"{within(average_title(one), screen)}\n{aligned(average_rows(one), screen)}" for one in averages]


def within(text: str, screen: Screen) -> str:
    """A line that is broken where it is longer than the screen is wide."""
    text = printable(text, screen.encoding)
    return text if screen.width is None else "\n".join(wrap(text, screen.width))


def described(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """What a set is, by the figures of its first model: `12 recordings, 45.2 min, language zh`."""
    first = next(iter(evaluations.values()))
    language = f", language {first['language']}" if first.get("language") else ""
    return f"{counted(first['recordings'], 'recording')}, {minutes(first['audio_seconds'])}{language}"


def main_rate(evaluations: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Title and key of the rate that a set is charted by: that of its normaliser."""
    return (WORDS, "wer") if _has_words(evaluations) else (MER, "mer")


def render_bars(evaluations: Mapping[str, Mapping[str, Any]], screen: Screen = ENDLESS) -> str:
    """The rates of a set's models as bars, by the rate of its normaliser."""
    title, rate = main_rate(evaluations)
    return rate_bars(
        title, [(TITLES.get(name, name), figures.get(rate)) for name, figures in evaluations.items()], screen
    )


def rate_bars(title: str, rates: Sequence[tuple[str, float | None]], screen: Screen = ENDLESS) -> str:
    """Rates that are known, by name, as bars below a title."""
    return f"{title}\n{bars([(name, rate, percent(rate)) for name, rate in rates if rate is not None], screen)}"


def average_title(average: MacroAverage) -> str:
    """What an average is of: `macro average of ascend and ntuml (language zh), each set counted once`."""
    names = f"{', '.join(average.sets[:-1])} and {average.sets[-1]}"
    language = f" (language {average.language})" if average.language else ""
    return f"macro average of {names}{language}, each set counted once"


def average_rows(average: MacroAverage) -> list[list[str]]:
    """Head and cells of an average, a row a model."""
    words = bool(average.wer)
    head = ["", *([WORDS] if words else []), MER]
    return [
        head,
        *(
            [TITLES.get(name, name), *([percent(average.wer.get(name))] if words else []), percent(mer)]
            for name, mer in average.mer.items()
        ),
    ]


def _has_words(evaluations: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(figures.get("wer") is not None for figures in evaluations.values())


def render_table(evaluations: Mapping[str, Mapping[str, Any]], screen: Screen = ENDLESS) -> str:
    """The table as text; at its end, how much faster the last row is than the first, if they were timed together.

    Below it insertions, by script, and errors where the language changes; nothing where there is none.
    """
    rows = [["", *table_columns(evaluations)], *table_rows(evaluations)]
    table = aligned(rows, screen)
    figures = list(evaluations.values())
    ratio = speed_up(figures[0], figures[-1]) if len(figures) > 1 else None
    if ratio is not None:
        compared = f"{ratio:.1f}x faster" if ratio >= 1 else f"{1 / ratio:.1f}x slower"
        if screen.width is None or columns_of(table.splitlines()[-1]) + 3 + len(compared) <= screen.width:
            table += f"   {compared}"
        else:
            pair = f"{rows[-1][0]} against {rows[1][0]}"  # which may be paths of folders
            fits = columns_of(f"{pair}: {compared}") <= screen.width
            table += f"\n{pair if fits else 'the last against the first'}: {compared}"
    inserted = "; ".join(f"{name} {text}" for name, text in inserted_rows(evaluations))
    text, indent = f"inserted: {inserted}", " " * len("inserted: ")
    parts = [table, *(wrap(text, screen.width or WIDTH, subsequent_indent=indent) if inserted else [])]
    return "\n".join([*parts, *render_switching(evaluations, screen)])


def render_switching(
    evaluations: Mapping[str, Mapping[str, Any]], screen: Screen = ENDLESS, *, runs: int = 1
) -> list[str]:
    """A blank line, title and table of the errors where the language changes; none where no reference does so."""
    rows = switching_rows(evaluations)
    return ["", within(switching_title(evaluations, runs=runs), screen), aligned(rows, screen)] if rows else []


def switching_title(evaluations: Mapping[str, Mapping[str, Any]], *, runs: int = 1) -> str:
    """What that table is of; `runs` is how many the figures of the first model are summed over."""
    at, total = (count // runs for count in switch_counts(evaluations))
    return f"errors in % where the language changes, at a switch ({at:,} of {total:,} tokens) and away"


def switching_rows(evaluations: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Head and rows of that table, a row a model that was measured so; empty where there is none."""
    titles, rates = shown_rates(evaluations)
    rows = [[TITLES.get(name, name), *map(percent, of_model)] for name, of_model in rates.items()]
    return [["", *titles], *rows] if rows else []


def inserted_rows(evaluations: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Name of each model with insertions, and these by script: `12 Han, 3 Latin, 223 marks`."""
    rows = [
        (TITLES.get(name, name), insertions_text(figures.get("insertions_by_script") or {}))
        for name, figures in evaluations.items()
    ]
    return [row for row in rows if row[1]]


def millions(parameters: int) -> str:
    """`72593920` as `72.6 M`."""
    return f"{parameters / 1e6:.1f} M"


def _cells(figures: Mapping[str, Any], parts: Sequence[str]) -> Sequence[str]:
    return (
        percent(figures["mer"]),
        *(percent(part_of(figures, title)) for title in parts),
        f"{figures['substitutions']}/{figures['deletions']}/{figures['insertions']}",
        str(figures["looping_outputs"]),
        f"{figures['rtf']:.3f}",
        factor(figures["rtf"]),
        millions(figures["parameters"]),
    )


def factor(rtf: float) -> str:
    """RTFx of a real-time factor, seconds of audio a second of work: `8.3`, `215`."""
    rtfx = inverse(rtf)
    return "-" if rtfx is None else f"{rtfx:.{1 if rtfx < 100 else 0}f}"


def percent(rate: float | None) -> str:
    """A rate in percent, or that it is unknown."""
    return "-" if rate is None else f"{100 * rate:.1f}"
