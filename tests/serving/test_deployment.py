"""What stands in examples/serving fits the server: its options, its routes, its signatures."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
import yaml
from serving_shop import answering

from tfrec_llm.cli import program
from tfrec_llm.serving import ModelVersions, ServerOptions, SQLiteHistories, create_app

ROOT = Path(__file__).parents[2]
FILES = ROOT / "examples" / "serving"
pytestmark = pytest.mark.skipif(not FILES.exists(), reason="examples/ is not beside the tests")


@pytest.fixture(scope="module")
def client():
    """The example's client, as a module."""
    path = FILES / "tensorflow_serving" / "client.py"
    spec = importlib.util.spec_from_file_location("serving_client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def versions(exported_shop):
    return ModelVersions(exported_shop.path.parent)


@pytest.fixture(scope="module")
def address(versions):
    options = ServerOptions(api_keys=["the-key"])
    with answering(create_app(versions, SQLiteHistories(":memory:"), options)) as address:
        yield address


def options_of(command):
    """Returns what `tfrec-llm` reads of a command, and fails where it refuses."""
    return program._parser().parse_args(command)


# ---- TensorFlow Serving


def test_the_client_gets_by_rest_what_the_model_recommends(client, address, exported_shop):
    histories = [["hats-1", "hats-2"], [], ["tops-3"]]
    asked = client.fill_up(histories, "")
    found = client.by_rest(address.removeprefix("http://"), "shop", asked, 10.0, "the-key")
    expected = exported_shop.recommend(histories)
    assert found["items"] == [one.items for one in expected]
    np.testing.assert_allclose(found["scores"], [one.scores for one in expected], atol=1e-5)
    assert found["source"] == ["model", "popularity", "model"]


def test_the_client_prints_what_a_server_answers(client, address, capsys):
    place = ["--address", address.removeprefix("http://"), "--api-key", "the-key"]
    client.main(["hats-1,hats-2", "", *place])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("hats-1,hats-2: ")
    assert lines[0].endswith("[model]")
    assert lines[1].endswith("[popularity]")


def test_the_clients_grpc_request_is_what_the_signature_takes(client, exported_shop):
    pytest.importorskip("tensorflow_serving")
    import tensorflow as tf

    histories = [["hats-1"] * 40, ["", ""], ["tops-3"]]
    request = client.request_of("shop", client.fill_up(histories, ""))
    assert request.model_spec.name == "shop"
    signature = exported_shop.signatures[request.model_spec.signature_name]
    specs = signature.structured_input_signature[1]
    assert set(request.inputs) == set(specs)
    for name, tensor in request.inputs.items():
        assert tf.dtypes.as_dtype(tensor.dtype) == specs[name].dtype
        assert specs[name].shape.is_compatible_with([one.size for one in tensor.tensor_shape.dim])
    assert request.inputs["history"].tensor_shape.dim[1].size == 128


def test_the_client_gets_by_grpc_what_the_model_recommends(client, exported_shop):
    pytest.importorskip("tensorflow_serving")
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        """Answers in TensorFlow Serving's place, by the same messages."""

        def Predict(self, request, context):
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            answer = predict_pb2.PredictResponse()
            found = exported_shop.call(request.model_spec.signature_name, inputs)
            for name, value in found.items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return answer

    server = grpc.server(ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        histories = [["hats-1", "hats-2"], []]
        found = client.by_grpc(f"127.0.0.1:{port}", "shop", client.fill_up(histories, ""), 10.0)
    finally:
        server.stop(None)
    expected = exported_shop.recommend(histories)
    assert found["items"] == [one.items for one in expected]
    np.testing.assert_allclose(found["scores"], [one.scores for one in expected], atol=1e-5)
    assert found["source"] == ["model", "popularity"]


def test_the_configuration_of_tensorflow_serving_is_read(client):
    pytest.importorskip("tensorflow_serving")
    from google.protobuf import text_format
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    folder = FILES / "tensorflow_serving"
    text = (folder / "models.config").read_text()
    (model,) = text_format.Parse(text, ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (
        "shop",
        "/models/shop",
        "tensorflow",
    )
    # The messages of the other two are in no package; these are their fields.
    batching = re.findall(r"^(\w+)[ :]", (folder / "batching.config").read_text(), re.MULTILINE)
    assert set(batching) <= {
        "max_batch_size",
        "batch_timeout_micros",
        "max_enqueued_batches",
        "num_batch_threads",
        "allowed_batch_sizes",
        "pad_variable_length_inputs",
    }
    assert "prometheus_config {" in (folder / "monitoring.config").read_text()


# ---- container


def instructions(wanted):
    """Returns what stands behind an instruction of the Dockerfile, each time."""
    text = (FILES / "container" / "Dockerfile").read_text()
    text = re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [rest for name, rest in lines if name == wanted]


def test_the_container_starts_the_server_without_rights():
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", instructions("USER")[-1])
    (entry,), (arguments,) = instructions("ENTRYPOINT"), instructions("CMD")
    name, *command = [*json.loads(entry), *json.loads(arguments)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert name in project["scripts"]
    options = options_of(command)
    assert options.host == "0.0.0.0"
    assert instructions("EXPOSE") == [str(options.port)]
    assert options.store.startswith(f"{instructions('VOLUME')[0]}/")
    (extras,) = re.findall(r"/source\[([\w,]+)\]", str(instructions("RUN")))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for image in instructions("FROM"):
        version = image.partition(":")[2].partition("-")[0]
        assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_what_the_container_copies_is_there_and_not_ignored():
    ignored = (FILES / "container" / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [rest.split()[:-1] for rest in instructions("COPY") if "--from" not in rest]
    for source in [one for sources in copied for one in sources]:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored


def test_the_containers_health_check_sees_whether_the_server_answers(address):
    (check,) = instructions("HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[0] == "python"
    codes = []
    for place in (address, "http://127.0.0.1:9"):
        code = command[2].replace("http://127.0.0.1:8501", place)
        assert code != command[2]
        codes.append(subprocess.run([sys.executable, "-c", code], capture_output=True).returncode)
    assert codes == [0, 1]


def test_the_package_holds_the_files_that_are_no_code():
    """An installed package lacks what pyproject.toml forgets, and a source tree does not."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folder = ROOT / "tfrec_llm"
    packaged = {
        path for pattern in setuptools["package-data"]["tfrec_llm"] for path in folder.glob(pattern)
    }
    there = {
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path for path in there if path.suffix != ".py"} == {
        path for path in packaged if path.is_file()
    }


# ---- Kubernetes


@pytest.fixture(scope="module")
def manifest():
    found = list(yaml.safe_load_all((FILES / "kubernetes" / "tfrec-llm.yaml").read_text()))
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def test_the_manifests_arguments_ports_and_probes_are_the_servers(manifest, versions):
    pod = manifest["Deployment", "tfrec-llm"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = options_of(["serve", *container["args"]])
    (port,) = container["ports"]
    assert (options.host, options.port) == ("0.0.0.0", port["containerPort"])
    assert pod["terminationGracePeriodSeconds"] > options.grace + 5
    app = create_app(versions, SQLiteHistories(":memory:"))
    routes = app.openapi()["paths"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == port["name"]
        assert "get" in routes[asked["path"]]
    source = (ROOT / "tfrec_llm" / "cli" / "serve.py").read_text()
    for variable in container["env"]:
        assert f'"{variable["name"]}"' in source
        assert variable["valueFrom"]["secretKeyRef"]["name"] == "tfrec-llm"
    service = manifest["Service", "tfrec-llm"]["spec"]
    assert service["ports"][0]["targetPort"] == port["name"]
    # The store is the Redis that the manifest starts.
    redis = manifest["Service", "tfrec-llm-redis"]["spec"]
    assert options.store == f"redis://tfrec-llm-redis:{redis['ports'][0]['port']}/0"
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "models"]
    assert str(options.model).startswith(mount["mountPath"])


def test_the_manifests_pods_have_no_rights_and_bounds(manifest):
    pods = [
        one["spec"]["template"]["spec"] for one in manifest.values() if "template" in one["spec"]
    ]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            mounts = {one["name"] for one in container["volumeMounts"]}
            assert mounts <= {"models", "tmp", "data"}


def test_what_the_manifest_selects_is_there(manifest):
    labels = {
        name: one["spec"]["template"]["metadata"]["labels"]
        for (kind, name), one in manifest.items()
        if kind in ("Deployment", "StatefulSet")
    }
    for (kind, name), one in manifest.items():
        spec = one["spec"]
        selectors = {
            "Deployment": lambda spec: spec["selector"]["matchLabels"],
            "StatefulSet": lambda spec: spec["selector"]["matchLabels"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
            "Service": lambda spec: spec["selector"],
        }
        if kind in selectors:
            assert selectors[kind](spec) == labels[name], (kind, name)
    scaled = manifest["HorizontalPodAutoscaler", "tfrec-llm"]["spec"]
    assert ("Deployment", scaled["scaleTargetRef"]["name"]) in manifest
    assert scaled["minReplicas"] == manifest["Deployment", "tfrec-llm"]["spec"]["replicas"] > 1


# ---- threats


def test_every_claim_of_the_threat_page_names_a_test_that_is_there():
    page = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
    table = page.partition("## What is checked")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 15
    for row in rows:
        (path, test) = re.search(r"`(tests/[\w/]+\.py)::(\w+)`", row).groups()
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), row


def test_shares_of_versions_that_cannot_be_written_are_refused(versions, monkeypatch):
    from starlette.testclient import TestClient

    from tfrec_llm.serving import app as module

    def refuse(*arguments):
        raise PermissionError("a volume that may only be read")

    monkeypatch.setattr(module, "write_traffic", refuse)
    app = create_app(versions, SQLiteHistories(":memory:"))
    with TestClient(app) as client:
        refused = client.put("/v1/traffic", json={"shares": {"1": 1.0}})
    assert refused.status_code == 409
    assert "cannot be written" in refused.json()["error"]
