import pytest

from skyscript_assets.lib.secrets import holds_secret, shown, told, with_place, without_secrets


@pytest.mark.parametrize(
    ("address", "as_shown"),
    [
        ("https://me:pw@host:80/a.tif?sig=x#y", "https://host:80/a.tif"),
        ("https://host?sig=x", "https://host"),
        ("s3://bucket/a@b.tif", "s3://bucket/a@b.tif"),
        ("/vsis3/bucket/a.tif?sig=x", "/vsis3/bucket/a.tif"),
        ("http://[broken/a?sig=x", "http://[broken/a"),
    ],
)
def test_addresses_are_shown_without_query_fragment_and_credentials(address: str, as_shown: str) -> None:
    assert shown(address) == as_shown


@pytest.mark.parametrize(
    "address",
    [
        "https://me:pw@host/a.tif",
        *(
            f"https://host/a.tif?x=1&{name}=s"
            for name in ("sig", "X-Amz-Signature", "access_token", "api-key", "key", "subscription-key", "password")
        ),
    ],
)
def test_addresses_that_hold_a_secret_lose_their_query_in_tables(address: str) -> None:
    assert holds_secret(address)
    assert without_secrets(address) == "https://host/a.tif"


@pytest.mark.parametrize(
    "address",
    [
        "https://host/a.tif?version=2&sort=key&monkey=1",
        "https://host/{z}/{x}/{y}?key={api_key}",
        "https://host/a@b.tif",
        "https://host/?token=",
    ],
)
def test_other_addresses_stay_as_they_are(address: str) -> None:
    assert without_secrets(address) == address


def test_a_known_secret_becomes_a_place_in_either_form() -> None:
    assert with_place("a/b+c and a%2Fb%2Bc", "a/b+c") == "{api_key} and {api_key}"
    assert with_place("nothing", "") == "nothing"


@pytest.mark.parametrize(
    ("said", "as_told"),
    [
        ("https://me:secret@host/a.tif failed", "https://host/a.tif failed"),
        ("https://host/a.tif?sig=SECRET&se=2024 failed", "https://host/a.tif failed"),
        ("'https://host/a.tif?sig=SECRET': 403", "'https://host/a.tif': 403"),
        ("s3://bucket/a.tif?X-Amz-Signature=SECRET", "s3://bucket/a.tif"),
        ("header Authorization: Bearer SECRET refused", "header Authorization: *** refused"),
        ("access_token=SECRET; more", "access_token=***; more"),
        ("api_key = SECRET", "api_key = ***"),
        ("/vsicurl/https://host/a.tif?token=SECRET: 404", "/vsicurl/https://host/a.tif 404"),
        ("two\nlines\x1b[31m", "two lines[31m"),
        ("", ""),
    ],
)
def test_what_others_say_is_told_in_one_line_without_secrets(said: str, as_told: str) -> None:
    assert told(said, 300) == as_told
    assert "SECRET" not in told(said, 300)


def test_what_is_told_is_bounded() -> None:
    assert told("x" * 10_000, 50) == "x" * 49 + "…"
