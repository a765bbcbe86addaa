"""What a server grants its clients: sizes, times and numbers."""

import msgspec


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one `Server`. Sizes in bytes, times in seconds."""

    max_header_bytes: int = 32768  # request line and header fields together
    max_headers: int = 128  # header fields
    max_body_bytes: int = 4194304
    header_timeout_s: float = (
        10.0  # from a request's first byte to the end of its head; from a connection's start to its first request
    )
    body_timeout_s: float = 30.0  # from the end of the head to the end of the body
    idle_timeout_s: float = 75.0  # between requests
    write_timeout_s: float = 60.0  # for a client that takes nothing of its reply, or less than the rate
    min_rate: int = 1024  # bytes per second that such a client has to take in that time
    linger_s: float = 1.0  # how long a refused client may take to read the refusal
    grace_s: float = 0.3  # how long a server that stops waits for the next request on a connection that was just in use
    max_connections: int = 8192
    max_refused: int = 512  # connections beyond those that are being told so at one time
    max_pipelined: int = 16  # parsed requests that wait their turn on one connection, before reading pauses
