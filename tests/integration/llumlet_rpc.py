"""A client of the llumlets' gRPC service, made of the .proto files at run time."""

import importlib
import pathlib
import subprocess
import sys
import tempfile

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _messages():
    with tempfile.TemporaryDirectory() as made:
        subprocess.run(
            ["protoc", f"--python_out={made}", *(f"-I{ROOT / 'integrations' / room}" for room in ("llumlet_grpc", "redis")),
             "llumlet.proto", "cms.proto"], check=True)
        sys.path.insert(0, made)
        try:
            return importlib.import_module("llumlet_pb2"), importlib.import_module("cms_pb2")
        finally:
            sys.path.remove(made)


rpc, cms = _messages()

METHODS = {
    "Migrate": (rpc.MigrateRequest, rpc.MigrateResponse),
    "Abort": (rpc.AbortRequests, rpc.AbortResponse),
    "MigrateIn": (rpc.MigrateInRequest, rpc.MigrateInResponse),
    "AbortMigrateIn": (rpc.AbortMigrateInRequest, rpc.AbortResponse),
    "PushInstanceStatus": (cms.InstanceStatus, rpc.PushInstanceStatusResponse),
}


def call(channel, method, request, seconds=10, **metadata):
    """Code, success and message of a call; `request`: a message, or the bytes of one."""
    _, answer = METHODS[method]
    ask = channel.unary_unary(
        f"/llumlet.Llumlet/{method}", response_deserializer=answer.FromString,
        request_serializer=lambda x: x if isinstance(x, bytes) else x.SerializeToString())
    given = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    try:
        reply = ask(request, timeout=seconds, metadata=given)
        return "OK", reply.success, reply.message
    except grpc.RpcError as failure:
        return failure.code().name, False, failure.details()


def migrate(channel, source, destination, order="SR", trigger="", seconds=10, kind=None, ip="", port=0, op="", **amount):
    (name, _), = amount.items()
    kind = kind or {"num_reqs": "NUM_REQ", "num_tokens": "TOKEN", "kv_cache_usage_ratio": "RATIO"}[name]
    request = rpc.MigrateRequest(
        src_engine_id=source, dst_engine_id=destination, dst_engine_ip=ip, dst_engine_port=port, migration_type=kind,
        migration_req_policy=order, trigger_policy=trigger, **amount)
    return call(channel, "Migrate", request, seconds, **({"llumnix_op_id": op} if op else {}))
