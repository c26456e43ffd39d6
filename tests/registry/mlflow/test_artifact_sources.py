import os
from pathlib import Path

import pytest

from registry.mlflow import artifact_sources
from registry.mlflow.types import ArtifactRefused

SERVER = "https://user:secret@mlflow.example.org/path"
DATABASE = "sqlite:////srv/mlflow.db"


def open_at(uri, tracking_uri=SERVER, folders=()):
    return artifact_sources.at(
        uri,
        tracking_uri=tracking_uri,
        folders=tuple(map(Path, folders)),
        open_remote=lambda uri: f"remote {uri}",
    )


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "artifact"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_bytes(b"flavors: {}")
    (folder / "data" / "model.pt2").write_bytes(b"weights")
    (folder / "registered_model_meta").write_bytes(b"model_name: x")
    return folder


def test_a_local_artifact_is_copied_without_mlflows_own_note(artifact, tmp_path):
    into = tmp_path / "copy"

    open_at(artifact.as_uri(), DATABASE).copy(into, max_bytes=100)

    copied = {str(p.relative_to(into)) for p in into.rglob("*") if p.is_file()}
    assert copied == {"MLmodel", "data/model.pt2"}


def test_a_single_file_is_read_and_an_absent_one_is_none(artifact):
    source = open_at(artifact.as_uri(), DATABASE)

    assert source.read("MLmodel", max_bytes=100) == b"flavors: {}"
    assert source.read("input_example.json", max_bytes=100) is None


def test_a_link_to_a_file_is_refused(artifact, tmp_path):
    (tmp_path / "secret").write_bytes(b"s")
    (artifact / "data" / "extra").symlink_to(tmp_path / "secret")

    with pytest.raises(ArtifactRefused, match="link"):
        open_at(artifact.as_uri(), DATABASE).copy(tmp_path / "copy", max_bytes=100)


def test_a_link_to_a_folder_is_refused(artifact, tmp_path):
    (artifact / "more").symlink_to(tmp_path, target_is_directory=True)

    with pytest.raises(ArtifactRefused, match="link"):
        open_at(artifact.as_uri(), DATABASE).copy(tmp_path / "copy", max_bytes=100)


def test_an_mlmodel_that_is_a_link_is_not_read(artifact, tmp_path):
    (tmp_path / "secret").write_bytes(b"s")
    (artifact / "MLmodel").unlink()
    (artifact / "MLmodel").symlink_to(tmp_path / "secret")

    with pytest.raises(ArtifactRefused, match="plain file"):
        open_at(artifact.as_uri(), DATABASE).read("MLmodel", max_bytes=100)


def test_a_named_pipe_is_refused(artifact, tmp_path):
    os.mkfifo(artifact / "data" / "pipe")

    with pytest.raises(ArtifactRefused, match="plain file"):
        open_at(artifact.as_uri(), DATABASE).copy(tmp_path / "copy", max_bytes=100)


def test_an_artifact_over_the_limit_is_refused_before_copying(artifact, tmp_path):
    into = tmp_path / "copy"

    with pytest.raises(ArtifactRefused, match="larger"):
        open_at(artifact.as_uri(), DATABASE).copy(into, max_bytes=17)

    assert not into.exists()


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "data/../../x", "..", "", "data\\..\\x"]
)
def test_a_listed_path_outside_the_artifact_is_refused(path):
    with pytest.raises(ArtifactRefused, match="outside"):
        artifact_sources.require_inside(path, folder="", seen=1)


def test_a_listing_that_leaves_its_folder_is_refused():
    with pytest.raises(ArtifactRefused, match="outside"):
        artifact_sources.require_inside("other/file", folder="data", seen=1)


def test_a_listing_without_an_end_is_refused():
    with pytest.raises(ArtifactRefused, match="more than"):
        artifact_sources.require_inside("a", folder="", seen=10_001)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc",
        "/etc",
        "file://fileserver/etc",
        "http://169.254.169.254/latest",
        "ftp://host/x",
        "mlflow-artifacts://other.example.org/x",
    ],
)
def test_a_server_may_not_name_our_files_or_other_hosts(uri):
    with pytest.raises(ArtifactRefused):
        open_at(uri)


@pytest.mark.parametrize(
    "uri",
    ["mlflow-artifacts:/1/x", "mlflow-artifacts://mlflow.example.org/x", "s3://b/x"],
)
def test_a_server_may_name_its_own_artifacts_and_object_stores(uri):
    assert open_at(uri) == f"remote {uri}"


def test_a_server_may_name_a_shared_folder_that_the_settings_allow(artifact, tmp_path):
    source = open_at(artifact.as_uri(), folders=[tmp_path])

    assert source.read("MLmodel", max_bytes=100) == b"flavors: {}"


def test_an_allowed_folder_cannot_be_left_by_dots(artifact, tmp_path):
    with pytest.raises(ArtifactRefused):
        open_at(f"file://{artifact}/../../etc", folders=[artifact])
