"""Paths with a scheme, such as `s3://bucket/folder`, and copies of them.

    local_copy.py   a remote file or folder through a local cache
    mirror.py       a folder to a remote one, its markers last: once, or
                    again and again
    paths.py        what is a remote path, and what serves it

A path without a scheme is local and takes none of this. tensorflow-io serves
the schemes that it has registered, where it is installed; `pyarrow.fs` serves
`s3://`, `gs://` and `hdfs://` everywhere else.

The services find their credentials as their own tools do. `s3://` reads
`AWS_ENDPOINT_URL_S3` and `AWS_ENDPOINT_URL`, for a store that is not
Amazon's, and `AWS_REGION`; `hdfs://` needs a Hadoop client on the machine.
`s3://` is tested against a server. Of `gs://` and `hdfs://` nothing but the
errors is: no server of theirs was at hand.
"""
