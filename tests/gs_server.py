"""gcp-storage-emulator with what it lacks of generations, which TensorStore asks for.

    python -m tests.gs_server HOST PORT BUCKET

An object that is read says its generation, and one is written and deleted under the
condition `ifGenerationMatch`, as the JSON API of Google's store has it.
"""

import sys
from http import HTTPStatus

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects


def generation(storage, bucket, name):
    """Of an object; "0" = there is none."""
    try:
        return storage.get_file_obj(bucket, name)["generation"]
    except NotFound:
        return "0"


def on_condition(handler):
    """A handler that answers 412 where the object has another generation."""

    def handle(request, response, storage, *args, **kwargs):
        wanted = request.query.get("ifGenerationMatch")
        bucket = request.params["bucket_name"]
        name = request.params.get("object_id") or request.query.get("name", [""])[0]
        if not name and isinstance(request.data, dict):  # in two parts
            name = request.data.get("meta", request.data).get("name")
        if wanted and wanted[0] != generation(storage, bucket, name):
            response.status = HTTPStatus.PRECONDITION_FAILED
            return
        handler(request, response, storage, *args, **kwargs)

    return handle


def telling_generation(handler):
    """A download that says the generation."""

    def handle(request, response, storage, *args, **kwargs):
        bucket, name = request.params["bucket_name"], request.params["object_id"]
        response["x-goog-generation"] = generation(storage, bucket, name)
        handler(request, response, storage, *args, **kwargs)

    return handle


if __name__ == "__main__":
    objects.insert = on_condition(objects.insert)
    objects.delete = on_condition(objects.delete)
    objects.download = telling_generation(objects.download)
    from gcp_storage_emulator.server import create_server  # reads the handlers

    host, port, bucket = sys.argv[1:]
    create_server(host, int(port), in_memory=True, default_bucket=bucket).run()
