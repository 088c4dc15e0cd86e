"""The store's bucket: made if asked for, and told to drop what uploads that were cut off leave behind.

An upload in parts that a kill interrupts leaves its parts in the bucket: nobody sees them, and everybody pays for them.
"""

import logging
import time
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from components.common.errors import InputError, StorageError
from components.common.settings import get_settings

log = logging.getLogger(__name__)

RULE = "pmc-llama-abort-incomplete-uploads"
_HOME_REGION = "us-east-1"  # S3 wants it unnamed
_NO_RULES = "NoSuchLifecycleConfiguration"
_SECONDS_BETWEEN_LOOKS = 2.0


def prepare_bucket(store_uri: str, create: bool, days: int, patience_seconds: float = 120) -> list[str]:
    """Make the bucket of a store, and have it abort uploads that nobody finishes.

    Rules that the bucket has already are kept.

    Args:
        store_uri: The store, ``s3://bucket/prefix``.
        create: Whether to make the bucket if it is not there.
        days: After so many an unfinished upload is dropped.
        patience_seconds: How long to wait for a server that does not answer yet.

    Returns:
        A sentence for each thing that was done.

    Raises:
        InputError: The store is not on S3, or its bucket is not there and not to be made.
        StorageError: S3 refuses or does not answer.
    """
    parts = urlsplit(store_uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise InputError(f"The store {store_uri} is in no bucket; set PMC_STORE_URI to s3://bucket/prefix.")
    bucket, settings = parts.netloc, get_settings()
    client: Any = boto3.client("s3", endpoint_url=settings.s3_endpoint or None, region_name=settings.s3_region)
    try:
        done = _made(client, bucket, create, settings.s3_region, time.monotonic() + patience_seconds)
        return done + _ruled(client, bucket, days)
    except (ClientError, BotoCoreError) as error:
        raise StorageError(f"S3 does not let the bucket {bucket} be prepared: {error}") from error


def _made(client: Any, bucket: str, create: bool, region: str, give_up: float) -> list[str]:
    if _is_there(client, bucket, give_up):
        return []
    if not create:
        raise InputError(f"There is no bucket {bucket}; make it, or have it made by --create.")
    place: dict[str, Any] = {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.create_bucket(Bucket=bucket, **({} if region == _HOME_REGION else place))
    except client.exceptions.BucketAlreadyOwnedByYou:  # somebody was quicker
        return []
    return [f"Made the bucket {bucket}."]


def _is_there(client: Any, bucket: str, give_up: float) -> bool:
    while True:
        try:
            client.head_bucket(Bucket=bucket)
            return True
        except ClientError as error:
            status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            if status == 404:
                return False
            # A server that has just started may answer so; a refusal stays one.
            if status < 500 or time.monotonic() > give_up:
                raise
        except BotoCoreError:
            if time.monotonic() > give_up:
                raise
        log.info("S3 does not answer yet; asking again.")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _ruled(client: Any, bucket: str, days: int) -> list[str]:
    rules = _rules(client, bucket)
    wanted = {
        "ID": RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
    }
    abort = "AbortIncompleteMultipartUpload"
    if any(rule.get("ID") == RULE and rule.get(abort) == wanted[abort] for rule in rules):
        return []
    kept = [rule for rule in rules if rule.get("ID") != RULE]
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [*kept, wanted]})
    return [f"The bucket {bucket} drops uploads that are unfinished after {days} days."]


def _rules(client: Any, bucket: str) -> list[Any]:
    try:
        return list(client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"])
    except ClientError as error:
        if error.response["Error"]["Code"] == _NO_RULES:
            return []
        raise
