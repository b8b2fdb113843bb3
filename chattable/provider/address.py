"""A provider's address as people write it, and as it is asked.

They copy it from a browser, from documentation, from another program's settings. Nothing here asks
anybody; `client` does, and tries `elsewhere` where nothing is.
"""

import ipaddress
import re
import socket
from urllib.parse import quote, urlsplit, urlunsplit

OPENAI = "https://api.openai.com/v1"
# Where the API begins of those who have it elsewhere than at /v1, and who might be asked without
# TLS: as of 2026, from their documentation.
BEGINS = {
    "api.openai.com": "/v1",
    "openrouter.ai": "/api/v1",
    "api.groq.com": "/openai/v1",
    "generativelanguage.googleapis.com": "/v1beta/openai",
    "api.fireworks.ai": "/inference/v1",
    "api.deepinfra.com": "/v1/openai",
    "dashscope.aliyuncs.com": "/compatible-mode/v1",
    "api.cohere.ai": "/compatibility/v1",
}
AZURE = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
# What is asked for at an address is none of it.
TAIL = re.compile(
    r"(/chat/completions|/completions|/responses|/messages|/embeddings|(?<=/api)/(tags|generate)"
    r"|(?<!/deployments)(/chat|/models(/[^/]+:\w+)?))/*$"
)
# A key has no dots and no port; of hosts, only short ones have neither, and hardly one a _.
KEY = re.compile(r"sk-.*|[^\s./:?#@]*_[^\s./:?#@]*|[^\s./:?#@]{31,}")
AROUND = " \t\r\n\"'`<>“”‘’"
# This machine, and the one that a container or a virtual machine runs on: no proxy knows it.
HERE = re.compile(
    r"(.+\.)?localhost6?(\.localdomain6?)?|ip6-(localhost|loopback)"
    r"|(host|gateway)\.(docker|containers|lima|orb|minikube)\.internal"
)
# Names that no public server has.
NEAR = re.compile(r"[^.]+|.+\.(local|lan|home|internal|home\.arpa|intranet|private|corp|svc)")
# As the C library takes them, which asks nobody: 127.1, 0x7f000001.
SHORT_ADDRESS = re.compile(r"\d[\da-fx]*(\.\d[\da-fx]*){0,3}")


def read_address(text: str) -> str:
    """Return the address that somebody means: with a scheme, up to where the API begins.

    A query is kept, and a name and a password. Raises ValueError with a sentence that says which
    part is wrong and quotes none of it.
    """
    text = text.strip(AROUND)
    text = with_scheme(text.lower() if text.isupper() else text)
    parts, host, port = split(text)
    path = re.sub("/{2,}", "/", quote(parts.path, safe="/%:@!$&'()*+,;=~"))
    while (shorter := TAIL.sub("", path).rstrip("/")) != path:
        path = shorter
    begins = BEGINS.get(host) or beginning(host, path, parts.query)
    if begins.startswith(path):
        path = begins
    scheme = "https" if host in BEGINS else parts.scheme
    user = parts.netloc.rpartition("@")[0]
    host = f"[{host}]" if ":" in host else host
    netloc = f"{user and f'{user}@'}{host}{f':{port}' if port else ''}"
    return urlunsplit((scheme, netloc, path, parts.query, ""))


def with_scheme(text):
    if KEY.fullmatch(text):
        raise ValueError("OPENAI_BASE_URL holds a key, which belongs into OPENAI_API_KEY.")
    if re.match("(?i)https?://", text):
        return text
    text = text.removeprefix("//")
    if "://" in text or re.match("(?i)https?[:/]", text):
        raise ValueError("OPENAI_BASE_URL has to begin with http:// or https://.")
    return f"{'http' if is_near(split(f'//{text}')[1]) else 'https'}://{text}"


def split(url):
    """Return (parts, host, port) of an address. Raises ValueError with a sentence."""
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("OPENAI_BASE_URL has a blank in it.")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        name = host if ":" in host else host.removesuffix(".").encode("idna").decode()
    except ValueError:
        name = ""
    if not re.fullmatch(r"[\w.:%-]+", name):
        raise ValueError("OPENAI_BASE_URL has no host, or one that cannot be.")
    if ":" in parts.netloc and "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(
            "The password in OPENAI_BASE_URL has a sign that is to be written as"
            " %23 (for #), %2F (for /) or %3F (for ?)."
        )
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("The port in OPENAI_BASE_URL is no number from 1 to 65535.")
    return parts, host, port


def beginning(host, path, query):
    """Return where the API begins at a host: at /v1, but for Azure's."""
    if not host.endswith(AZURE):
        return "" if path else "/v1"
    # The older one, to which deployments belong, has a version in the query.
    return "/openai" if is_versioned(query) else "/openai/v1"


def is_versioned(query):
    return re.search(r"(?:^|&)api-version=(20\d\d[\d-]*(?:-preview)?)(?:&|$)", query)


def api_version(url: str) -> str | None:
    """Return the version of Azure's older API if it is the one at an address."""
    parts = urlsplit(url)
    version = is_versioned(parts.query)
    azures = re.search(r"/openai(/deployments/[^/]+)?$", parts.path)
    return version[1] if version and azures else None


def deployment(url: str) -> str | None:
    """Return the one model that is behind an address of Azure's, if it names one."""
    found = re.search(r"/deployments/([^/]+)$", urlsplit(url).path)
    return found[1] if found else None


def elsewhere(url: str) -> list[str]:
    """Return where else a provider may be, if nothing is at an address."""
    parts = urlsplit(url)
    path = parts.path
    if path.endswith("/v1"):
        paths = [path.removesuffix("/v1")]
    elif re.search(r"/v\d|/deployments/", path) or api_version(url):
        paths = []
    else:
        # Ollama's own API is at /api, and what others understand beside it.
        paths = [f"{path}/v1", *(["/v1"] if path == "/api" else [])]
    return [urlunsplit(parts._replace(path=other)) for other in paths]


def is_openai(url: str | None) -> bool:
    """Return whether an address, or none, is OpenAI's own."""
    return not url or urlsplit(url).hostname == urlsplit(OPENAI).hostname


def is_near(host: str) -> bool:
    """Return whether a host is this machine or in a network of one's own.

    Nobody is paid there, and TLS is rare.
    """
    host = host.lower().rstrip(".")
    address = ip_address(host)
    return not address.is_global if address else is_this_machine(host) or bool(NEAR.fullmatch(host))


def is_this_machine(host: str) -> bool:
    """Return whether a host is this machine, or the one that this container is on."""
    host = host.lower().rstrip(".")
    address = ip_address(host)
    if address:
        return address.is_loopback or address.is_unspecified
    return bool(HERE.fullmatch(host))


def ip_address(host):
    """Return the address that a host is, if it is no name: IPv4's in whatever form."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        if not SHORT_ADDRESS.fullmatch(host):
            return None
        try:
            return ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return None
    if address.version == 6 and 2**24 <= int(address) < 2**32:  # ::127.0.0.1, of old
        return ipaddress.IPv4Address(int(address))
    return getattr(address, "ipv4_mapped", None) or address
