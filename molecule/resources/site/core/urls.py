"""The two endpoints of the spam check."""

from django.urls import path

from core import spam

urlpatterns = [
    path("api/spam/get-latest-batch/", spam.batch),
    path("api/spam/update/", spam.update),
    path("about/", spam.about),
]
