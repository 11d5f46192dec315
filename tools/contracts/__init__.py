"""The published contract: AsyncAPI from the saga table, validated, and held against the last release."""
