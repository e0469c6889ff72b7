"""What a model server's refusal, or its silence, becomes."""


class ServerError(RuntimeError):
    """A server did not answer a request.

    Args:
        code: Name of the gRPC status, such as "UNAVAILABLE". A status of
            HTTP is given as the gRPC status that the server turned into it.
        details: What the server said.
    """

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details
