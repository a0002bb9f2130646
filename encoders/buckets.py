"""Media in buckets that settings name, by s3:. Endpoint and credentials are those that boto3 would find."""

import contextlib
import importlib
import re
from typing import Any

from penchant.encoders.base import Undecodable
from penchant.encoders.fetch import Passing
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

__all__ = ["Buckets"]

REFERENCE = re.compile(r"s3://([^/]+)/(.+)", re.IGNORECASE | re.DOTALL)


class Buckets:
    """Fetches media from buckets. The connection is made when it is first needed.

    Args:
        settings: which buckets may be read, how long an attempt and how large a medium may be.

    Raises:
        ConfigurationError: buckets are named, and what reads them is not installed.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self._settings = settings
        self._files: Any = None
        self._client: Any = None
        if settings.media_buckets:
            try:
                importlib.import_module("s3fs")
            except ImportError:
                raise ConfigurationError(
                    "encoders.media_buckets names buckets, and what reads them is not installed",
                    hint='pip install "penchant[s3]"',
                ) from None

    def checked(self, uri: str) -> tuple[str, str]:
        """Bucket and key of a reference.

        Raises:
            Undecodable: it is none ("malformed-uri"), or its bucket must not be read ("not-allowed").
        """
        found = REFERENCE.fullmatch(uri)
        if found is None or "\0" in uri:
            raise Undecodable("The reference names no bucket and key", reason="malformed-uri")
        bucket, key = found.groups()
        if bucket not in self._settings.media_buckets:
            raise Undecodable("The bucket is none of those allowed", reason="not-allowed")
        return bucket, key

    async def fetch(self, bucket: str, key: str) -> bytes:
        """What lies in a bucket under a key: one attempt.

        Raises:
            Undecodable: there is nothing there to be had ("not-found", "not-given", "too-large").
            Passing: it could not be had now.
        """
        try:
            file = await (await self._opened()).open_async(f"{bucket}/{key}", "rb")
            with contextlib.ExitStack() as at_last:
                content = bytearray(await file.read(self._settings.max_media_bytes + 1))
                at_last.callback(file.r.close)
                while len(content) <= self._settings.max_media_bytes and (more := await file.read(2**16)):
                    content += more
        except FileNotFoundError:
            raise Undecodable("There is nothing there", reason="not-found") from None
        except PermissionError:
            raise Undecodable("The bucket does not give it", reason="not-given") from None
        except Exception as error:  # noqa: BLE001  three libraries below, each with exceptions of its own
            raise Passing(type(error).__name__) from None
        if len(content) > self._settings.max_media_bytes:
            raise Undecodable(f"There are more than {self._settings.max_media_bytes} bytes", reason="too-large")
        return bytes(content)

    async def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            await self._client.__aexit__(None, None, None)
            self._client = self._files = None

    async def _opened(self) -> Any:
        if self._files is None:
            timeout_s = self._settings.media_timeout_s
            self._files = importlib.import_module("s3fs").S3FileSystem(
                asynchronous=True,
                skip_instance_cache=True,
                use_listings_cache=False,
                # Whoever fetches tries again by itself.
                config_kwargs={
                    "connect_timeout": timeout_s,
                    "read_timeout": timeout_s,
                    "retries": {"total_max_attempts": 1},
                },
            )
            self._files.retries = 1
        self._client = await self._files.set_session()
        return self._files
