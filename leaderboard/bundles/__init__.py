"""Signed result bundles: what a run claims, the records it rests on, and who says so."""
