"""Make a bucket in the object store if it is missing; wait for the store to start."""

import sys
import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

PATIENCE_S = 60.0


def main() -> None:
    store, name = boto3.client("s3"), sys.argv[1]
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            store.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise
        except BotoCoreError as error:
            if time.monotonic() > deadline:
                sys.exit(f"The object store does not answer: {error}")
            time.sleep(1)
            continue
        return


if __name__ == "__main__":
    main()
