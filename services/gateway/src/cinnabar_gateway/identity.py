"""Who calls: tenant, role and user of the call that is being served."""

from __future__ import annotations

import enum
from contextvars import ContextVar
from dataclasses import dataclass

from cinnabar_common.errors import CredentialInvalid, RoleForbidden
from cinnabar_common.names import is_id


class Role(enum.Enum):
    """What a caller is in the tenant."""

    STUDENT = "student"
    INSTRUCTOR = "instructor"
    OPERATOR = "operator"


_ROLES = {role.value: role for role in Role}
_SCHEME = "bearer"
_DEVELOPMENT = "dev"


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller as the credential names them; both ids are `[a-z0-9-]{1,63}`."""

    tenant: str
    role: Role
    user: str

    @property
    def actor(self) -> str:
        """How the audit names the caller."""
        return f"{self.role.value}/{self.user}"

    def require(self, action: str, *roles: Role) -> None:
        """Raises RoleForbidden unless the caller has one of ``roles``."""
        if self.role not in roles:
            raise RoleForbidden(role=self.role.value, action=action)


def development_identity(authorization: str) -> Identity:
    """The identity in ``Bearer dev.<tenant>.<role>.<user>``, which proves nothing.

    Raises CredentialInvalid when it is malformed.
    """
    scheme, _, token = authorization.partition(" ")
    parts = token.strip().split(".")
    if scheme.lower() != _SCHEME or len(parts) != 4 or parts[0] != _DEVELOPMENT:
        raise CredentialInvalid
    _, tenant, role, user = parts
    if not is_id(tenant) or not is_id(user) or role not in _ROLES:
        raise CredentialInvalid
    return Identity(tenant, _ROLES[role], user)


_current: ContextVar[Identity] = ContextVar("identity")


def current() -> Identity:
    """The identity of the call that is being served. CredentialInvalid outside of one."""
    try:
        return _current.get()
    except LookupError:
        raise CredentialInvalid from None


def enter(identity: Identity) -> None:
    """Makes ``identity`` the one of the current task, which serves one call."""
    _current.set(identity)
