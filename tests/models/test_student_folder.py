"""However a student's folder comes about, it holds what all of Whisper's users read, and transformers 5 sees no change."""

import pytest
from distillation.tiny_training import trainer_for
from peft import LoraConfig
from student_layout import check_layout, check_processor, json_of
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from k2d_hf import create_student
from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.models import resolve_checkpoint
from k2d_hf.models.adapters import save_adapter
from k2d_hf.models.student_folder import complete_student, is_complete, save_student, write_processor


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def training(tiny_whisper, tiny_whisper_dir, noise_file, processor, tmp_path):
    """A trainer of one step, and the folder that it writes to."""
    from datasets import Dataset

    row = {"recording": str(noise_file), "start": 0.0, "duration": 3.0, "text": "好", "previous_text": None}
    row |= {"segments": [{"start": 0.0, "end": 3.0, "text": "好"}], "language": "zh", "keep": True, "distance": 0.0}
    chunks = Dataset.from_list([row])
    chunks.save_to_disk(str(tmp_path / "chunks"))

    def make(**settings):
        settings = {"teacher_model": tiny_whisper, "max_steps": 1, **settings}
        return trainer_for(create_student(tiny_whisper), chunks, processor, tmp_path / "out", **settings)

    return make


def by_student(place, teacher, training):
    assert main(["student", str(teacher), "--language", "zh", "--output", str(place / "new"), "--quiet"]) == 0
    return place / "new"


def by_distil(place, teacher, training):
    training()
    command = ["distil", str(place / "chunks"), "--student", str(by_student(place, teacher, training))]
    command += ["--teacher", str(teacher), "--output", str(place / "trained"), "--quiet", "--set", "max_steps=1"]
    assert main([*command, "--set", "use_cpu=true", "--set", "peft={r: 2}"]) == 0  # merged at its end
    return place / "trained"


def by_import(place, teacher, training):
    assert main(["export", str(teacher), "--to", "ctranslate2", "--output", str(place / "ct2"), "--quiet"]) == 0
    assert main(["import-ctranslate2", str(place / "ct2"), "--output", str(place / "imported"), "--quiet"]) == 0
    return place / "imported"


def by_save_model(place, teacher, training):
    training().save_model(str(place / "saved"))
    return place / "saved"


def by_checkpoint(place, teacher, training):
    training(save_strategy="steps", save_steps=1).train()
    return place / "out" / "checkpoint-1"


def by_merging(place, teacher, training):
    trainer = training(peft_config=LoraConfig(r=2, target_modules=["q_proj"]))
    save_adapter(trainer.model, place / "adapter", sources=str(teacher), encoder_layers=None, decoder_layers=2)
    return resolve_checkpoint(place / "adapter").path


def by_completing(place, teacher, training):
    """What `k2d push` does with a folder that somebody saved otherwise."""
    assert not is_complete(teacher)
    (place / "completed").mkdir()
    complete_student(teacher, place / "completed")
    (place / "completed" / "model.safetensors").symlink_to(teacher / "model.safetensors")
    return place / "completed"


WRITERS = [*(by_student, by_distil, by_import, by_save_model, by_checkpoint, by_merging, by_completing)]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_the_folder_opens_everywhere(tmp_path, tiny_whisper_dir, processor, training, write):
    folder = write(tmp_path, tiny_whisper_dir, training)
    check_layout(folder, processor)
    assert is_complete(folder)
    assert WhisperForConditionalGeneration.from_pretrained(folder).generation_config.is_multilingual


def test_a_trainer_of_adapters_saves_the_processor_whole(tmp_path, processor, training):
    training(peft_config=LoraConfig(r=2, target_modules=["q_proj"])).save_model(str(tmp_path / "saved"))
    check_processor(tmp_path / "saved", processor)
    assert not (tmp_path / "saved" / "config.json").exists()
    check_layout(tmp_path / "out" / "base", processor)  # the student beneath them, which was in memory alone


def test_written_again_it_is_the_same(tiny_whisper_dir, tmp_path):
    """So a second push finds nothing to do, though transformers 5 saves another form in between."""
    contents = []
    source = tiny_whisper_dir
    for name in ("one", "two"):
        model = WhisperForConditionalGeneration.from_pretrained(source)
        save_student(model, WhisperProcessor.from_pretrained(source), tmp_path / name)
        source = tmp_path / name
        contents.append({path.name: path.read_bytes() for path in source.iterdir()})
    assert contents[0] == contents[1]


def test_the_table_of_spellings_of_a_teacher_stays(tiny_whisper_dir, tmp_path, processor):
    write_processor(processor, tmp_path / "teacher")
    (tmp_path / "teacher" / "normalizer.json").write_text('{"gaol": "jail"}', encoding="utf-8")
    write_processor(WhisperProcessor.from_pretrained(tmp_path / "teacher"), tmp_path / "student")
    assert json_of(tmp_path / "student" / "normalizer.json") == {"gaol": "jail"}


def test_an_english_only_vocabulary(english_processor, tmp_path):
    write_processor(english_processor, tmp_path)
    vocabulary, added = json_of(tmp_path / "vocab.json"), json_of(tmp_path / "added_tokens.json")
    assert vocabulary | added == english_processor.tokenizer.get_vocab()
    assert vocabulary["<|endoftext|>"] == 50256
    loaded = WhisperProcessor.from_pretrained(tmp_path).tokenizer
    assert loaded.all_special_ids == english_processor.tokenizer.all_special_ids


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("generation_config.json", "[1]", "generation_config.json"),
        ("generation_config.json", "{", "generation_config.json: not a generation config"),
        ("tokenizer.json", "{", "its tokenizer cannot be read"),
    ],
)
def test_what_cannot_be_completed_is_one_line(tiny_whisper_dir, tmp_path, name, content, line):
    import shutil

    folder = shutil.copytree(tiny_whisper_dir, tmp_path / "student")
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(K2DError, match=line) as error:
        complete_student(folder, tmp_path)
    assert "\n" not in str(error.value)
