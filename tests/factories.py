"""Make rows for tests. Set only the fields that the test is about."""

from typing import Any

import factory
from django.contrib.auth.models import User
from factory.django import DjangoModelFactory, Password

from accounts.admission import key_format
from accounts.admission.limits import SCOPES
from accounts.customers import api_keys
from accounts.models import ApiKey, Customer, Plan


class UserFactory(DjangoModelFactory[User]):
    class Meta:
        model = User

    username = factory.Sequence(lambda n: f"user{n}")
    password = Password("correct horse battery staple")


class PlanFactory(DjangoModelFactory[Plan]):
    class Meta:
        model = Plan

    name = factory.Sequence(lambda n: f"Plan {n}")


class CustomerFactory(DjangoModelFactory[Customer]):
    class Meta:
        model = Customer

    name = factory.Sequence(lambda n: f"Customer {n}")
    plan = factory.SubFactory(PlanFactory)


class ApiKeyFactory(DjangoModelFactory[ApiKey]):
    """A key whose token is unknown; `issue_key` returns a key with its token."""

    class Meta:
        model = ApiKey
        exclude = ["new"]

    new = factory.LazyFunction(lambda: key_format.generate("live"))
    customer = factory.SubFactory(CustomerFactory)
    name = factory.Sequence(lambda n: f"key {n}")
    key_id = factory.LazyAttribute(lambda key: key.new.key_id)
    digest = factory.LazyAttribute(lambda key: key.new.digest.hex())
    scopes = factory.LazyFunction(lambda: list(SCOPES))


def issue_key(customer: Customer | None = None, **kwargs: Any) -> api_keys.IssuedKey:
    """Issue a key with every scope, for tests that call the API with its token."""
    return api_keys.issue(
        customer or CustomerFactory.create(),
        **{"name": "test key", "scopes": SCOPES, **kwargs},
    )
