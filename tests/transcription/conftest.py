"""What several tests of transcription share."""

import pytest
from tiny_whisper import make_tiny_whisper


@pytest.fixture(scope="module")
def random_dir(tmp_path_factory, processor):
    """A random Whisper, whose text depends on all that it is given; it writes at most forty tokens a window."""
    folder, model = tmp_path_factory.mktemp("random"), make_tiny_whisper()
    model.generation_config.max_length = 40
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
