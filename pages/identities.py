"""Who a person with an account is at an OpenID Connect provider."""

from sqlalchemy import ForeignKey, String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from models import Model, User, db


class Identity(Model):
    """What an OpenID Connect provider (its issuer) calls a person."""

    __tablename__ = "identities"

    issuer: Mapped[str] = mapped_column(String(255), primary_key=True)
    subject: Mapped[str] = mapped_column(String(255), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)

    @classmethod
    def owner(cls, issuer: str, subject: str) -> User | None:
        """Return whose account a person at a provider has, or None."""
        this = cls.issuer == issuer, cls.subject == subject
        return db.session.scalar(select(User).join(cls, cls.user_id == User.id).where(*this))

    @classmethod
    def give(cls, issuer: str, subject: str, user: User) -> None:
        """Let a person at a provider into an account."""
        db.session.merge(cls(issuer=issuer, subject=subject, user_id=user.id))
        db.session.commit()

    @classmethod
    def issuers(cls, user: User) -> list[str]:
        """Return the providers by which somebody can log in."""
        theirs = select(cls.issuer).where(cls.user_id == user.id).distinct()
        return [*db.session.scalars(theirs.order_by(cls.issuer))]

    @classmethod
    def take_all(cls, user: User) -> None:
        """Let nobody at a provider into an account any more."""
        db.session.execute(delete(cls).where(cls.user_id == user.id))
        db.session.commit()
