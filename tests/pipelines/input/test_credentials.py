from __future__ import annotations

import pytest

from pipelines.input.credentials import is_secret_name, secret_values, values_without_credentials, without_credentials


@pytest.mark.parametrize(
    "name",
    [
        "WANDB_API_KEY", "HF_TOKEN", "authToken", "db-password", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD",
        "HTTP_AUTHORIZATION", "apiKey", "ssh_key", "X_AUTH", "session.cookie",
    ],
)  # fmt: skip
def test_names_that_hold_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["key", "monkey", "KEYBOARD", "key_frame", "author", "PATH", "tokenizer", "data.root", "train.epochs"]
)
def test_names_that_hold_none(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:s3cr@t@cam/1", "rtsp://admin:***@cam/1"),
        ("rtsp://admin:s3cret@cam/1", "rtsp://admin:***@cam/1"),
        ("--mirror https://ghp_0123456789abcdef0123@host/x", "--mirror https://***@host/x"),
        ("http://user@host/a", "http://user@host/a"),
        ("https://host/a?token=abc&b=1", "https://host/a?token=***&b=1"),
        ("WANDB_API_KEY=abc PATH=/bin", "WANDB_API_KEY=*** PATH=/bin"),
        ('{"password": "abc", "key": "v"}', '{"password": "***", "key": "v"}'),
        ("auth_token: abc", "auth_token: ***"),
        ("runs/a: 5 steps, key=3 a@b.c", "runs/a: 5 steps, key=3 a@b.c"),
    ],
)
def test_what_is_secret_in_a_text_is_hidden(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_the_secrets_of_an_environment_are_its_longer_values_with_such_names() -> None:
    assert secret_values({"HF_TOKEN": "abcdefgh", "A_TOKEN": "x", "PATH": "/usr/bin:/bin"}) == ["abcdefgh"]


def test_a_secret_in_the_value_of_a_setting_is_hidden_too() -> None:
    assert without_credentials("environment: HF_TOKEN=abcdef, more=1") == "environment: HF_TOKEN=***, more=1"
    assert without_credentials("a=b=c API_KEY=x=TOKEN=y z") == "a=b=c API_KEY=*** z"


def test_a_text_of_megabytes_takes_time_in_proportion() -> None:
    # The tests end one that takes three minutes; this takes milliseconds, by other patterns hours.
    for piece in ("x", "x.", "://", "a=", "://a:", "token"):
        text = piece * (4_000_000 // len(piece))
        assert without_credentials(text + " TOKEN=abc").endswith(" TOKEN=***")


def test_the_secrets_in_nested_values_are_hidden_and_all_else_is_as_it_was() -> None:
    plain = {"data": {"root": "/d", "key": "v", "sizes": [1, 2.5, None]}, "token": "", "tokens": 5, "seed": True}
    assert values_without_credentials(plain) == plain
    secret = {"a": {"api_token": "abc", "list": ["rtsp://u:p@h/1", {"password": "x"}]}, "command": ["HF_TOKEN=abc"]}
    assert values_without_credentials(secret) == {
        "a": {"api_token": "***", "list": ["rtsp://u:***@h/1", {"password": "***"}]}, "command": ["HF_TOKEN=***"],
    }  # fmt: skip
