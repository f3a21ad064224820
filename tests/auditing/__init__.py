"""Tests of the audit. The bug zoo (tests/zoo) shows what the probes find; these tests show the rest."""
