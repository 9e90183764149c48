# The worker's identity, and the roles that docs/security.md explains. Only the role for Firestore is on the project,
# because Firestore has no narrower place for it.

data "google_project" "this" {
  project_id = var.project
}

locals {
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"

  on_kubernetes = var.kubernetes_service_account != null
  identity_pool = "projects/${data.google_project.this.number}/locations/global/workloadIdentityPools/${var.project}.svc.id.goog"
  worker = (
    local.on_kubernetes
    ? "principal://iam.googleapis.com/${local.identity_pool}/subject/ns/${var.kubernetes_service_account.namespace}/sa/${var.kubernetes_service_account.name}"
    : google_service_account.worker[0].member
  )
}

resource "google_service_account" "worker" {
  count = local.on_kubernetes ? 0 : 1

  project      = var.project
  account_id   = var.service_account_id
  display_name = "worker-chart-export"
}

resource "google_pubsub_subscription_iam_member" "worker_subscribes" {
  project      = var.project
  subscription = google_pubsub_subscription.worker.name
  role         = "roles/pubsub.subscriber"
  member       = local.worker

  # If the subscription is replaced, its grants are lost although its name stays.
  lifecycle {
    replace_triggered_by = [google_pubsub_subscription.worker.id]
  }
}

resource "google_pubsub_subscription_iam_member" "doctor_looks" {
  count = var.worker_may_run_doctor ? 1 : 0

  project      = var.project
  subscription = google_pubsub_subscription.worker.name
  role         = "roles/pubsub.viewer"
  member       = local.worker

  lifecycle {
    replace_triggered_by = [google_pubsub_subscription.worker.id]
  }
}

resource "google_pubsub_topic_iam_member" "worker_quarantines" {
  project = var.project
  topic   = google_pubsub_topic.quarantine.name
  role    = "roles/pubsub.publisher"
  member  = local.worker
}

resource "google_project_iam_member" "worker_uses_documents" {
  project = var.project
  role    = "roles/datastore.user"
  member  = local.worker

  condition {
    title      = "one-database"
    expression = "resource.name == \"projects/${var.project}/databases/${var.firestore_database}\""
  }
}

resource "google_storage_bucket_iam_member" "worker_stores_charts" {
  bucket = google_storage_bucket.charts.name
  role   = "roles/storage.objectUser"
  member = local.worker
}

resource "google_storage_bucket_iam_member" "worker_reads_candles" {
  count = var.candles_bucket == null ? 0 : 1

  bucket = var.candles_bucket
  role   = "roles/storage.objectViewer"
  member = local.worker
}
