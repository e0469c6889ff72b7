"""The stand-in with both of its interfaces."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc

from export.stand_in_server.rest_server import RestServer
from export.stand_in_server.servicer import Servicer
from export.stand_in_server.stand_in import StandInServer


@contextlib.contextmanager
def serving(path: Path) -> Iterator[StandInServer]:
    """Serves a version on two free ports of loopback.

    It answers what a client asks, over a SavedModel in this process: Predict
    and GetModelMetadata by gRPC, and the REST interface version 1. Batching,
    warm-up and the loading of new versions it does not have.

    Args:
        path: Folder of the version, whose name is its number.
    """
    server = StandInServer(path)
    grpc_server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8),
        # As the server has it, where Python's default is 4 MiB.
        options=[("grpc.max_receive_message_length", -1)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Servicer(server), grpc_server
    )
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    server.grpc_server = f"127.0.0.1:{port}"
    grpc_server.start()
    rest_server = RestServer(server)
    server.rest_server = f"http://127.0.0.1:{rest_server.server_port}"
    thread = threading.Thread(target=rest_server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        grpc_server.stop(None).wait()
        rest_server.shutdown()
        thread.join()
        rest_server.server_close()
