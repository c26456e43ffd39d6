import pytest

from tests.factories import CustomerFactory, UserFactory


@pytest.fixture
def customer(db):
    """Make a customer with quotas and one member."""
    customer = CustomerFactory.create(
        name="Acme", plan__daily_quota=10, plan__monthly_quota=1000
    )
    customer.members.add(UserFactory.create(username="mia"))
    return customer


@pytest.fixture
def member(client, customer):
    """Sign the customer's member in."""
    client.force_login(customer.members.get())
    return client
