"""What a reference may say, and a setting."""

import pytest

from penchant.encoders.base import Undecodable
from penchant.encoders.fetch import Fetcher
from penchant.encoders.media import MediaReader
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings
from tests.encoders.fetching.rig import HOST, Names, allowing, outcome

ODD_HOSTS = (
    *("2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "-a-", ".", "a.", "a..b", "a:b", "a:99999", ""),
    *(
        "\N{FULLWIDTH DIGIT ONE}27.0.0.1",
        "a\N{IDEOGRAPHIC FULL STOP}test",
        "\N{KELVIN SIGN}.test",
        "a%2ftest",
        "a test",
    ),
    *("[", "[::1", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[v1.x]", "[127.0.0.1]", "evil\\@a.test", "a.test\0"),
)
OTHER_HOSTS = (
    *("user:word@a.test", "a.test@evil.test", "@a.test", "a.test:22", "a.test:80", "a.test:0", "localhost"),
    *("127.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::a9fe:a9fe]"),
)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        *((f"https://{host}/", "malformed-uri") for host in ODD_HOSTS),
        *((f"https://{host}/", "not-allowed") for host in OTHER_HOSTS),
        *((uri, "malformed-uri") for uri in ("https:", "https://", "https:a", "https:/a", "https://a.test/\r\nx: y")),
        *(
            (uri, "unsupported-scheme")
            for uri in ("ht\ntps://a.test/", " https://a.test/", "ftp://a.test/", "//a.test/")
        ),
        ("http://a.test/", "not-allowed"),
    ],
)
async def test_a_reference_is_read_strictly(uri, reason):
    """What two programs may read in two ways leads nowhere, and so does every disguise of an address."""
    names = Names(localhost=(["127.0.0.1"],))
    assert await outcome(MediaReader(EncoderSettings(media_hosts=("*",)), resolve=names), uri) == reason
    assert not any("test" in asked for asked in names.asked)


@pytest.mark.parametrize("named", ["1.2.3", "a..b", "[::1::2]", "a:99999"])
def test_a_setting_that_names_no_host_is_said(named):
    """At the start, not at the first reference."""
    with pytest.raises(ConfigurationError, match="media_hosts"):
        MediaReader(EncoderSettings(media_hosts=(named,)))


async def test_a_host_is_none_but_itself(host, tls):
    """Names are compared whole."""
    fetcher = Fetcher(allowing(host), resolve=Names(), tls=tls)
    for name in (f"evil{HOST}", f"{HOST}.evil.test", f"www.{HOST}", HOST.replace(".", "-")):
        with pytest.raises(Undecodable):
            fetcher.checked(f"https://{name}:{host.port}/ok")
    assert fetcher.checked(f"HTTPS://MEDIA.test:{host.port}").uri == f"https://{HOST}:{host.port}/"
    assert fetcher.checked(f"https://{HOST}:{host.port}/ä b".replace(" ", "%20")).path == "/%C3%A4%20b"
