"""Settings of the course for nbgrader; ``make course`` puts a copy into the course's folder.

The folders are nbgrader's own: ``source``, ``release``, ``submitted``, ``autograded``, ``feedback``.
"""

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "bandit"
c.CourseDirectory.ignore = [
    ".ipynb_checkpoints",
    "*.pyc",
    "__pycache__",
    ".pytest_cache",
]

# What stands where a solution was.
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError()"}

# A cell that runs longer than this, in seconds, counts as failed.
c.Execute.timeout = 60
c.Execute.interrupt_on_timeout = True

# Who handed in what, from the names that learning platforms give to files, or to folders, in an
# archive: ada_ps01-closed-form.ipynb, "Ada Lovelace_4711_assignsubmission_file_/ps01-….ipynb".
c.FileNameCollectorPlugin.named_regexp = (
    r".*[/\\](?P<student_id>[^/\\_.][^/\\_]*)(?:_[^/\\]*?)?[/\\_]"
    r"(?P<file_id>ps\d\d(?:-[a-z]+)+)[^/\\]*\.ipynb$"
)

# On a busy machine kernels begin late, and messages of errors are read late; nbgrader would grade
# without those that come after four seconds.
c.Execute.startup_timeout = 600
c.Execute.iopub_timeout = 60
