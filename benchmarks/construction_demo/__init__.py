"""The circle, shown on the zoo: which tasks are rare, more of these, approved by a reviewer, and what they bring."""
