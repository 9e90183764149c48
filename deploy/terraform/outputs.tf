locals {
  settings = merge(
    {
      GOOGLE_CLOUD_PROJECT = var.project
      PUBSUB_SUBSCRIPTION  = google_pubsub_subscription.worker.name
      QUARANTINE_TOPIC     = google_pubsub_topic.quarantine.name
      CHARTS_BUCKET        = "gs://${google_storage_bucket.charts.name}"
    },
    var.firestore_database == "(default)" ? {} : { FIRESTORE_DB = var.firestore_database },
  )
}

output "settings" {
  description = "The worker's settings, by name."
  value       = local.settings
}

output "environment" {
  description = "The same as lines of an environment file: terraform output -raw environment"
  value       = join("", [for name, value in local.settings : "${name}=${value}\n"])
}

output "worker" {
  description = "The identity with the roles, as IAM writes it."
  value       = local.worker
}

output "service_account" {
  description = "The worker's Google service account; null with kubernetes_service_account."
  value       = one(google_service_account.worker[*].email)
}

output "topic" {
  description = "Where the orchestrator publishes; it needs roles/pubsub.publisher there."
  value       = local.topic
}

output "left_over" {
  description = "The subscriptions of rejected messages and of dead letters."
  value = {
    quarantine   = google_pubsub_subscription.quarantine.name
    dead_letters = google_pubsub_subscription.dead_letters.name
  }
}
