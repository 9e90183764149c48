# Each validation of deploy/terraform/variables.tf refuses what it should, and takes what is right.

variables {
  project  = "my-project"
  location = "europe-west1"
  bucket   = "my-charts"
}

run "takes_the_defaults" {
  command = plan
}

run "takes_all_that_is_right" {
  command = plan

  variables {
    project                    = "a12345"
    bucket                     = "my.charts_2"
    topic                      = "projects/example.com:orchestra/topics/flow.steps"
    subscription               = "charts~v2.x"
    quarantine_topic           = "Charts_refused"
    dead_letter_topic          = "charts+dead"
    max_delivery_attempts      = 100
    ack_deadline_seconds       = 600
    retention_days             = 31
    delete_charts_after_days   = 1
    service_account_id         = "worker-1"
    kubernetes_service_account = { namespace = "chart-export", name = "worker-chart-export" }
  }
}

run "refuses_a_project_s_number" {
  command = plan

  variables {
    project = "123456789012"
  }

  expect_failures = [var.project]
}

run "refuses_a_bucket_with_its_scheme" {
  command = plan

  variables {
    bucket = "gs://my-charts"
  }

  expect_failures = [var.bucket]
}

run "refuses_a_subscription_s_path" {
  command = plan

  variables {
    subscription = "projects/my-project/subscriptions/chart-export"
  }

  expect_failures = [var.subscription]
}

run "refuses_a_name_that_is_google_s" {
  command = plan

  variables {
    subscription = "goog-charts"
  }

  expect_failures = [var.subscription]
}

run "takes_a_topic_s_id" {
  command = plan

  variables {
    topic = "Flow.steps~2"
  }
}

run "refuses_a_topic_s_path_without_its_project" {
  command = plan

  variables {
    topic = "topics/flow-steps"
  }

  expect_failures = [var.topic]
}

run "refuses_a_subscription_s_path_as_topic" {
  command = plan

  variables {
    topic = "projects/my-project/subscriptions/flow-steps"
  }

  expect_failures = [var.topic]
}

run "refuses_a_topic_with_a_short_id" {
  command = plan

  variables {
    topic = "projects/my-project/topics/ab"
  }

  expect_failures = [var.topic]
}

run "refuses_a_topic_that_is_google_s" {
  command = plan

  variables {
    topic = "projects/my-project/topics/goog-steps"
  }

  expect_failures = [var.topic]
}

run "refuses_a_quarantine_s_path" {
  command = plan

  variables {
    quarantine_topic = "projects/my-project/topics/chart-export-quarantine"
  }

  expect_failures = [var.quarantine_topic]
}

run "refuses_a_quarantine_that_is_google_s" {
  command = plan

  variables {
    quarantine_topic = "google-quarantine"
  }

  expect_failures = [var.quarantine_topic]
}

run "refuses_dead_letters_path" {
  command = plan

  variables {
    dead_letter_topic = "projects/my-project/topics/chart-export-dead"
  }

  expect_failures = [var.dead_letter_topic]
}

run "refuses_dead_letters_that_begin_with_a_digit" {
  command = plan

  variables {
    dead_letter_topic = "2-chart-export-dead"
  }

  expect_failures = [var.dead_letter_topic]
}

run "refuses_too_few_deliveries" {
  command = plan

  variables {
    max_delivery_attempts = 19
  }

  expect_failures = [var.max_delivery_attempts]
}

run "refuses_a_short_ack_deadline" {
  command = plan

  variables {
    ack_deadline_seconds = 29
  }

  expect_failures = [var.ack_deadline_seconds]
}

run "refuses_messages_for_too_long" {
  command = plan

  variables {
    retention_days = 32
  }

  expect_failures = [var.retention_days]
}

run "refuses_to_delete_charts_at_once" {
  command = plan

  variables {
    delete_charts_after_days = 0
  }

  expect_failures = [var.delete_charts_after_days]
}

run "refuses_a_short_account_id" {
  command = plan

  variables {
    service_account_id = "abc"
  }

  expect_failures = [var.service_account_id]
}
