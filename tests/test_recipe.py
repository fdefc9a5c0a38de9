"""The recipe: what a user may write, and the line that answers each mistake before any model loads."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from k2d_hf import K2DTrainingArguments, load_recipe, load_recordings
from k2d_hf.data.references import references_of
from k2d_hf.distillation.settings import DistillationSettings, deciding_targets
from k2d_hf.errors import K2DError
from k2d_hf.pipeline.recipe import (
    MANAGED,
    DataSettings,
    LabelSettings,
    Recipe,
    read_distil,
)
from k2d_hf.pipeline.rounds import rounds_of

MINIMAL = "name: mine\nrecordings: speech\nteacher: org/teacher\nauxiliary: [org/small, teacher]\n"


@pytest.fixture
def write(tmp_path):
    """Writes a recipe beside a folder `speech`."""
    (tmp_path / "speech").mkdir()
    path = tmp_path / "r.yaml"

    def write(text=MINIMAL):
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_minimal_recipe_has_the_papers_values(write, tmp_path):
    recipe = load_recipe(write())
    assert recipe.recordings == DataSettings(source=str(tmp_path / "speech"))
    assert (recipe.teacher, recipe.auxiliary) == ("org/teacher", ["org/small", "teacher"])
    assert (recipe.validate.metric, recipe.validate.threshold) == ("composite", 0.4)
    assert recipe.student.decoder_layers == 2
    assert (recipe.evaluation, recipe.language, recipe.distil) == (None, None, {})
    assert recipe.directory == Path("runs/mine")


def test_a_recipe_can_be_made_in_python():
    recipe = Recipe(name="mine", recordings=DataSettings("speech"), teacher="t", auxiliary="teacher")
    assert recipe.label == LabelSettings()
    assert recipe.evaluate.before


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (MINIMAL + "validate: {treshold: 0.3}\n", "{path}: validate.treshold: no such setting; did you mean threshold?"),
        (MINIMAL + "validat: {threshold: 0.3}\n", "{path}: validat: no such setting; did you mean validate?"),
        (MINIMAL + "validate: {threshold: 1.5}\n", "{path}: validate.threshold: 1.5 is outside 0 to 1"),
        (MINIMAL + "validate: {threshold: -0.1}\n", "{path}: validate.threshold: -0.1 is outside 0 to 1"),
        (
            MINIMAL + "validate: {metric: compsite}\n",
            "{path}: validate.metric: 'compsite' is none of full, trivial, mer, per, composite; did you mean composite?",
        ),
        (MINIMAL + "label: {beam_size: wide}\n", "{path}: label.beam_size: 'wide' is not a whole number"),
        (MINIMAL + "label: {max_duration: 31}\n", "{path}: label.max_duration: 31.0 is outside 1 to 30"),
        (MINIMAL + "distil: {max_step: 3}\n", "{path}: distil.max_step: no such setting; did you mean max_steps?"),
        (MINIMAL + "distil: {zzzz: 3}\n", "{path}: distil.zzzz: no such setting"),
        (MINIMAL + "distil: {max_steps: 1.5}\n", "{path}: distil.max_steps: 1.5 is not a whole number"),
        (MINIMAL + "distil: {ce_weight: -1}\n", "{path}: distil: ce_weight -1.0: must not be negative"),
        (MINIMAL + "distil: {espeak_language: es}\n", "{path}: distil.espeak_language: a recipe has one for labels and tokens (validate.espeak_language); leave it out"),
        (MINIMAL + "distil: {output_dir: x}\n", "{path}: distil.output_dir: this one is set by k2d itself; leave it out"),
        (MINIMAL + "distil: {peft: {rr: 3}}\n", "{path}: distil.peft.rr: no such setting; did you mean r?"),
        (MINIMAL.replace("name: mine", "name: a/b"), "{path}: name: 'a/b' names a folder: letters, digits, dots, dashes and underscores"),
        (MINIMAL.replace("speech", "speech.jsonl"), "{path}: recordings: 'speech.jsonl' does not exist, neither beside the recipe nor from here"),
        (MINIMAL.replace("speech", "~nobody-at-all/x"), "{path}: recordings: '~nobody-at-all/x' does not exist, neither"),
        (MINIMAL.replace("speech", "s" * 300), "{path}: recordings: 'sssss"),
        (MINIMAL + "label: {max_duration: 1e400}\n", "{path}: label.max_duration: '1e400' is not a number"),
        (MINIMAL + '"a\\nb": 1\n', "{path}: 'a\\nb': no such setting"),
        (MINIMAL + f"language: [{'a, ' * 1000}]\n", "{path}: language: ['a', 'a', 'a', "),
        (MINIMAL + "distil: {accelerator_config: none.json}\n", "{path}: distil: [Errno 2] No such file or directory: 'none.json'"),
        (MINIMAL + "evaluation: ./dev\n", "{path}: evaluation: './dev' does not exist, neither beside the recipe nor from here"),
        (MINIMAL + "references: org/spoken\n", "{path}: references: 'org/spoken' does not exist, neither beside the recipe nor from here"),
        (MINIMAL.replace("teacher: org/teacher\n", ""), "{path}: teacher: missing; give a checkpoint, or several to try in order: paths, Hub ids, wheels"),
        (MINIMAL.replace("auxiliary: [org/small, teacher]\n", ""), "{path}: auxiliary: missing; give a small checkpoint likewise, or 'teacher' for the teacher's own"),
        (MINIMAL + "hub: {repo: me/x}\n", "{path}: hub.repo: no such setting; did you mean repo_id?"),
        (MINIMAL + "hub: {private: maybe}\n", "{path}: hub.private: 'maybe' is not true or false"),
        (MINIMAL + "hub: {ctranslate2: true}\n", "{path}: hub.ctranslate2: there is no repository to push to; set hub.repo_id too"),
        (MINIMAL + "hub: {ggml: true}\n", "{path}: hub.ggml: there is no repository to push to; set hub.repo_id too"),
        (MINIMAL + "hub: {revision: v2}\n", "{path}: hub.revision: there is no repository to push to; set hub.repo_id too"),
        (MINIMAL + "hub: {data_repo_id: me/x}\n", "{path}: hub.data_repo_id: a data set goes with its student; set hub.repo_id too"),
        (MINIMAL + "label: [1, 2]\n", "{path}: label must be a mapping of settings, not [1, 2]"),
        (MINIMAL + "name: again\n", "{path}, line 5: not a YAML that a recipe may hold: name is set twice"),
        ("name: [\n", "{path}, line 2: not a YAML that a recipe may hold: "),
        ("just a word\n", "{path}: a recipe is a mapping of settings, such as name: mine; this is 'just a word'"),
        ("", "{path}: a recipe is a mapping of settings, such as name: mine; this is None"),
        (
            "name: !!python/object/apply:os.system ['true']\n",
            "{path}, line 1: not a YAML that a recipe may hold: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_file_and_key(write, text, line):
    path = write(text)
    with pytest.raises(K2DError) as raised:
        load_recipe(path)
    message = str(raised.value)
    assert message.startswith(line.format(path=path))
    assert "\n" not in message
    assert len(message) < 300 + len(str(path))


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(K2DError, match=r"no\.yaml: no such recipe; give the path of a YAML file$"):
        load_recipe(tmp_path / "no.yaml")


def test_a_number_in_exponents_is_a_number(write):
    assert load_recipe(write(MINIMAL + "distil: {learning_rate: 5e-4}\n")).distil == {"learning_rate": 5e-4}


def test_overrides_reach_into_sections(write):
    recipe = load_recipe(write(), ["distil.max_steps=50", "validate.threshold=0.2", "student.decoder_layers=[0, -1]"])
    assert recipe.distil == {"max_steps": 50}
    assert recipe.validate.threshold == 0.2
    assert recipe.student.decoder_layers == [0, -1]
    with pytest.raises(K2DError, match=r"validate\.treshold: no such setting; did you mean threshold\?"):
        load_recipe(write(), ["validate.treshold=0.2"])


def test_data_sets_have_a_section(write):
    text = MINIMAL.replace("recordings: speech", "recordings: {source: org/set, split: test, config: zh-TW}")
    assert load_recipe(write(text)).recordings == DataSettings("org/set", split="test", config="zh-TW")
    text = MINIMAL.replace("recordings: speech", "recordings: {source: 's3://bucket/lectures', streaming: true}")
    assert load_recipe(write(text)).recordings == DataSettings("s3://bucket/lectures", streaming=True)


def test_models_beside_the_recipe_are_found(write, tmp_path, monkeypatch):
    (tmp_path / "models" / "big").mkdir(parents=True)
    (tmp_path / "teacher").mkdir()
    monkeypatch.chdir("/")
    recipe = load_recipe(write(MINIMAL.replace("org/teacher", "models/big")))
    assert recipe.teacher == str(tmp_path / "models" / "big")
    assert recipe.auxiliary == ["org/small", "teacher"]  # the word keeps its meaning
    recipe = load_recipe(write(f"{MINIMAL}more_auxiliaries: [models/big, [org/small, models/big, teacher]]\n"))
    assert recipe.more_auxiliaries == [
        str(tmp_path / "models" / "big"),
        ["org/small", str(tmp_path / "models" / "big"), "teacher"],
    ]


@pytest.mark.parametrize("place", ["spoken.jsonl", "s3://bucket/spoken.jsonl"])
def test_references_are_looked_up_as_recordings_are(write, tmp_path, monkeypatch, place):
    (tmp_path / "spoken.jsonl").touch()
    monkeypatch.chdir("/")
    expected = place if "://" in place else str(tmp_path / place)
    assert load_recipe(write(f"{MINIMAL}references: {place}\n")).references == expected
    elsewhere = load_recipe(write(f"{MINIMAL}references: gone.jsonl\n"), elsewhere=True)
    assert elsewhere.references == "gone.jsonl"


def test_a_written_recipe_reads_the_same(write, tmp_path):
    (tmp_path / "spoken.jsonl").touch()
    settings = "language: zh\ndistil: {learning_rate: 5e-4}\nevaluation: speech\nreferences: spoken.jsonl\n"
    recipe = load_recipe(write(MINIMAL + settings))
    recipe.write(tmp_path / "resolved.yaml")
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


@pytest.mark.parametrize(("file", "rounds", "layers"), [("quickstart", 2, 2), ("one_round", 1, [0, 1, 3, 5])])
def test_the_quickstart_and_its_one_round_are_recipes(file, rounds, layers):
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "quickstart" / f"{file}.yaml")
    assert (recipe.rounds, recipe.student.decoder_layers) == (rounds, layers)
    recordings = load_recordings(recipe.recordings.source)["recording"]
    assert list(references_of(recipe.references, recordings)) == recordings


def test_settings_of_distillation_are_those_of_the_trainer():
    arguments = {field.name: field for field in fields(K2DTrainingArguments)}
    assert set(MANAGED) - {"logging_dir"} <= set(arguments)
    for field in fields(DistillationSettings):
        assert arguments[field.name].default == field.default
        assert field.metadata["help"]


def test_tokens_are_weighed_by_the_phones_that_labels_are_compared_by(write):
    path = write(MINIMAL + "validate: {espeak_language: es}\ndistil: {token_weighting: agreement}\n")
    recipe = load_recipe(path)
    assert recipe.training == {"token_weighting": "agreement", "espeak_language": "es"}
    assert load_recipe(path, ["distil.token_weighting=none"]).training == {"token_weighting": "none"}  # as ever
    assert load_recipe(path, ["validate.espeak_language=null"]).training == recipe.distil
    before = replace(recipe, rounds=2, adapt={"validate": {"espeak_language": "hi"}})
    assert [each.training["espeak_language"] for each in rounds_of(before)] == ["hi", "es"]
    assert deciding_targets(recipe.training) == {}
    recipe.write(path)
    assert load_recipe(path).training == recipe.training


def test_settings_of_distillation_are_copied_not_changed():
    given = {"learning_rate": "1e-4", "peft": {"r": 4}}
    assert read_distil(given, where="x") == {"learning_rate": 1e-4, "peft": {"r": 4}}
    assert given["learning_rate"] == "1e-4"
