"""Addresses of the compositions app; a job of somebody else answers like a missing one."""

from __future__ import annotations

from django.urls import URLPattern, path

from marketplace.compositions import api
from marketplace.compositions.views import composing, jobs, results

_JOB = "jobs/<uuid:pk>"

urlpatterns: list[URLPattern] = [
    path("compose", composing.new, name="new"),
    path("compose/check", composing.check, name="check"),
    path("jobs", jobs.list_jobs, name="list"),
    path(_JOB, jobs.show_job, name="job"),
    path(f"{_JOB}/progress", jobs.show_progress, name="progress"),
    path(f"{_JOB}/log", jobs.show_log, name="log"),
    path(f"{_JOB}/cancel", jobs.cancel, name="cancel"),
    path(f"{_JOB}/retry", jobs.retry, name="retry"),
    path(f"{_JOB}/clone", jobs.clone, name="clone"),
    path(f"{_JOB}/forget", jobs.forget, name="forget"),
    path(f"{_JOB}/publish", results.publish, name="publish"),
    path(f"{_JOB}/zip", results.download_zip, name="zip"),
    path(f"{_JOB}/report", results.download_report, name="report"),
    path(f"{_JOB}/recipe", results.show_recipe, name="recipe"),
    path(f"{_JOB}/files/<path:path>", results.download_file, name="file"),
]
api_urlpatterns: list[URLPattern] = [
    path("jobs", api.JobList.as_view(), name="api_jobs"),
    path("jobs/check", api.JobCheck.as_view(), name="api_job_check"),
    path(_JOB, api.JobDetail.as_view(), name="api_job"),
    path(f"{_JOB}/evaluations", api.JobEvaluations.as_view(), name="api_job_evaluations"),
    path(f"{_JOB}/report", api.JobReport.as_view(), name="api_job_report"),
    path(f"{_JOB}/examples", api.JobExamples.as_view(), name="api_job_examples"),
    path(f"{_JOB}/cancel", api.JobCancel.as_view(), name="api_job_cancel"),
    path(f"{_JOB}/retry", api.JobRetry.as_view(), name="api_job_retry"),
    path(f"{_JOB}/clone", api.JobClone.as_view(), name="api_job_clone"),
    path(f"{_JOB}/publish", api.JobPublish.as_view(), name="api_job_publish"),
    path(f"{_JOB}/files", api.JobFiles.as_view(), name="api_job_files"),
    path(f"{_JOB}/files/<path:path>", api.JobFile.as_view(), name="api_job_file"),
]
