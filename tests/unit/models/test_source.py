from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from scarprune.demo import model_folder
from scarprune.errors import ArtifactError
from scarprune.models.load import load_model
from scarprune.models.source import locate, origin_of
from support.hub import http
from support.tiny_models import tiny_model


def test_demo_is_the_built_in_model_and_a_folder_called_demo_is_not(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("demo").path == model_folder()
    assert locate("./demo").path.resolve() == tmp_path / "demo"


def test_what_looks_like_a_path_is_never_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    for source in (
        tmp_path / "none",
        "./none",
        "/none/at/all",
        "none/at/all",
        "~/none-at-all",
        Path("org/none"),
    ):
        with pytest.raises(ArtifactError, match=r"There is no folder .*none"):
            locate(source)
    with pytest.raises(ArtifactError, match=r"There is no file .*none\.gguf"):
        locate("org/none.gguf")


def _answer(status):
    return http.Response(status, request=http.Request("GET", "https://huggingface.co/org/name"))


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (
            lambda: LocalEntryNotFoundError("offline"),
            "There is no folder org/name, and the hub cannot be reached",
        ),
        (
            lambda: RepositoryNotFoundError("404", response=_answer(404)),
            "the hub knows no model of that name",
        ),
        (lambda: GatedRepoError("403", response=_answer(403)), "only to those who accepted its terms"),
        (
            lambda: RevisionNotFoundError("404", response=_answer(404)),
            "org/name has no revision 'v9' on the hub",
        ),
        (lambda: ConnectionError("cable"), "the hub cannot be reached"),
        (
            lambda: OSError(28, "No space left on device"),
            r"broke off: \[Errno 28\] No space left on device\.",
        ),
        (lambda: http.ReadError("peer\nclosed"), r"The download of org/name broke off: peer closed\."),
        (lambda: http.ReadError(""), r"The download of org/name broke off: ReadError\."),
    ],
)
def test_what_the_hub_answers_is_one_sentence(raised, words, monkeypatch):
    def refuse(*args, **kwargs):
        raise raised()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ArtifactError, match=words):
        locate("org/name", "v9")


@pytest.mark.parametrize("shard_size", ["1GB", "40KB"])
def test_a_hub_id_is_downloaded_small_files_first_then_the_weights_they_name(
    tmp_path, monkeypatch, shard_size
):
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size=shard_size)
    asked = []

    def download(repository, *, revision, allow_patterns, ignore_patterns):
        asked.append((repository, revision, tuple(allow_patterns)))
        assert ignore_patterns == ["*/*"]
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model, _ = load_model("org/name", revision="v2")
    assert origin_of(model).source == "org/name"
    (_, _, small), (_, _, weights) = asked
    assert {found[:2] for found in asked} == {("org/name", "v2")}
    assert "*.json" in small
    assert "*.py" not in small
    assert {path.name for path in tmp_path.glob("*.safetensors")} <= set(weights)


def test_a_config_is_had_without_weights(tmp_path, monkeypatch):
    tiny_model("llama").save_pretrained(tmp_path)
    asked = []

    def download(repository, *, allow_patterns, **options):
        asked.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert locate("org/name", weights=False).path == tmp_path
    assert "*.json" in asked
    assert not [pattern for pattern in asked if "safetensors" in pattern]


def test_code_is_downloaded_only_for_those_who_trust_it(tmp_path, monkeypatch):
    asked = []

    def download(repository, *, allow_patterns, **options):
        asked.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    locate("org/name", code=True)
    assert "*.py" in asked
