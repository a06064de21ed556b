"""Attacks on what a server or an analyst sees (being built; the signature below is what `migrafed audit` calls)."""

from __future__ import annotations

from privacy.audits.results import AuditResult


def attack_audits(*, quick: bool) -> list[AuditResult]:
    """Membership inference on final models and gradient inversion on updates, without and with the mechanism."""
    return []
