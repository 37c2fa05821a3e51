from typing import Any

import pytest

from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.imagery.sources.stac.credentials import signer_of
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource

FACTS: dict[str, Any] = {"title": "t", "gsd_m": 0.5, "licence": "l", "attribution": "a"}


def test_a_secret_goes_to_its_hosts_alone_and_never_from_https_to_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURVEY_TOKEN", "secret")
    facts = {"catalog": "https://example.org/stac", "token": {"env": "SURVEY_TOKEN", "header": "X-Key", "prefix": ""}}
    signer = signer_of(StacSource.model_validate(FACTS | {"assets": ["image"]} | facts))
    assert signer is not None
    assert signer.sign("https://example.org/a.tif")[1] == {"X-Key": "secret"}
    for url in ("http://example.org/a.tif", "https://example.org.evil.net/a.tif", "https://a.example.org/a.tif"):
        assert signer.sign(url) == (url, {})


def test_signing_wants_a_collection() -> None:
    source = StacSource.model_validate(
        FACTS | {"catalog": "https://example.org", "assets": ["image"], "signing": {"kind": "planetary-computer"}}
    )
    with pytest.raises(SettingsError, match="signing needs a collection"):
        signer_of(source)
